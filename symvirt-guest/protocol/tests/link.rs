//! The link over a stream that loses bytes at any position, is cut and opened again.

use proptest::prelude::*;
use symvirt_protocol::frame::encode;
use symvirt_protocol::link::{Link, LinkError, MAX_UNACKED, Packet, Received};

type End = Link<u32, u32>;

/// Two ends and the bytes between them.
struct Wire {
    ends: [End; 2],
    /// Bytes under way to each end.
    under_way: [Vec<u8>; 2],
    got: [Vec<u32>; 2],
    sessions: [usize; 2],
}

impl Wire {
    fn new() -> Self {
        let mut wire = Wire {
            ends: [End::new(10), End::new(20)],
            under_way: [Vec::new(), Vec::new()],
            got: [Vec::new(), Vec::new()],
            sessions: [0, 0],
        };
        wire.reconnect();
        wire
    }

    fn take(&mut self, from: usize) {
        let bytes = self.ends[from].take_output();
        self.under_way[1 - from].extend(bytes);
    }

    fn note(&mut self, at: usize, received: Vec<Received<u32>>) {
        for what in received {
            match what {
                Received::Message(message) => self.got[at].push(message),
                Received::Session { .. } => self.sessions[at] += 1,
                Received::Resumed => {}
                Received::Malformed(_) | Received::Version { .. } => panic!("{what:?}"),
            }
        }
        self.take(at);
    }

    fn deliver(&mut self, at: usize, bytes: usize) {
        let bytes = bytes.min(self.under_way[at].len());
        let now: Vec<u8> = self.under_way[at].drain(..bytes).collect();
        let received = self.ends[at].receive(&now);
        self.note(at, received);
    }

    fn tick(&mut self, at: usize) {
        let received = self.ends[at].tick();
        self.note(at, received);
    }

    fn reconnect(&mut self) {
        self.under_way = [Vec::new(), Vec::new()];
        for end in [0, 1] {
            self.ends[end].reconnected();
            self.take(end);
        }
    }

    /// Until nothing moves without loss.
    fn settle(&mut self) {
        for round in 0..200 {
            for end in [0, 1] {
                self.deliver(end, usize::MAX);
            }
            if self.under_way.iter().all(Vec::is_empty) {
                if self
                    .ends
                    .iter()
                    .all(|end| end.unacked() == 0 && end.is_established())
                {
                    return;
                }
                self.tick(round % 2);
            }
        }
        panic!(
            "unacknowledged: {} and {}",
            self.ends[0].unacked(),
            self.ends[1].unacked()
        );
    }
}

#[test]
fn messages_queued_before_the_first_contact_arrive_after_it() {
    let mut wire = Wire::new();
    wire.ends[0].send(&1).expect("room");
    wire.settle();
    assert_eq!((&wire.got[1][..], wire.sessions), (&[1][..], [1, 1]));
}

#[test]
fn a_restarted_side_is_reported_once_and_gets_nothing_meant_for_its_earlier_life() {
    let mut wire = Wire::new();
    wire.settle();
    wire.ends[0].send(&1).expect("room");
    wire.take(0);
    wire.ends[1] = End::new(21);
    wire.reconnect();
    wire.settle();
    assert_eq!(
        wire.sessions,
        [2, 2],
        "each side met once before, once after"
    );
    assert_eq!(wire.got[1], []);
    wire.ends[0].send(&2).expect("room");
    wire.ends[1].send(&3).expect("room");
    wire.take(0);
    wire.take(1);
    wire.settle();
    assert_eq!((&wire.got[0][..], &wire.got[1][..]), (&[3][..], &[2][..]));
}

#[test]
fn a_restart_is_found_without_any_reconnection() {
    let mut wire = Wire::new();
    wire.settle();
    wire.ends[1] = End::new(21);
    wire.ends[0].send(&1).expect("room");
    wire.take(0);
    for _ in 0..4 {
        wire.tick(0);
        wire.tick(1);
        wire.deliver(0, usize::MAX);
        wire.deliver(1, usize::MAX);
    }
    wire.settle();
    assert_eq!((wire.sessions, wire.got[1].len()), ([2, 2], 0));
}

#[test]
fn a_link_goes_on_over_another_path_without_loss_or_repetition() {
    let mut wire = Wire::new();
    wire.settle();
    for message in 0..10 {
        wire.ends[0].send(&message).expect("room");
        wire.ends[1].send(&message).expect("room");
    }
    wire.take(0);
    wire.take(1);
    wire.deliver(1, 100);
    // The daemon reads another chardev now; the guest's port was not reopened.
    wire.under_way = [Vec::new(), Vec::new()];
    wire.ends[1].reconnected();
    wire.take(1);
    wire.settle();
    let all: Vec<u32> = (0..10).collect();
    assert_eq!(
        (&wire.got[0], &wire.got[1], wire.sessions),
        (&all, &all, [1, 1])
    );
}

#[test]
fn a_side_that_never_acknowledges_fills_the_link_and_no_more() {
    let mut end = End::new(1);
    for message in 0..MAX_UNACKED as u32 {
        end.send(&message).expect("room");
    }
    assert!(matches!(
        end.send(&0),
        Err(LinkError::Full {
            messages: MAX_UNACKED,
            ..
        })
    ));
}

#[test]
fn an_idle_link_says_nothing() {
    let mut wire = Wire::new();
    wire.settle();
    for _ in 0..10 {
        wire.tick(0);
        wire.tick(1);
    }
    assert!(wire.under_way.iter().all(Vec::is_empty));
}

#[test]
fn a_peer_that_begins_at_the_last_of_all_numbers_breaks_nothing() {
    let mut end = End::new(1);
    let resume = Packet::Resume {
        session: 2,
        peer: None,
        oldest: u64::MAX,
        probe: false,
    };
    let data = Packet::Data {
        session: 2,
        of: 1,
        seq: u64::MAX,
        ack: 0,
        payload: vec![7],
    };
    for packet in [resume, data] {
        let received = end.receive(&encode(&packet).expect("short"));
        let messages = received
            .iter()
            .filter(|what| matches!(what, Received::Message(_)));
        assert_eq!(messages.count(), 0, "{received:?}");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Send(usize),
    Deliver(usize, usize),
    /// Loses bytes at a position of what is under way.
    Lose(usize, usize, usize),
    Reconnect,
    /// Only one side sees that the stream is another one.
    Reopen(usize),
    Tick(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let end = 0..2usize;
    prop_oneof![
        6 => end.clone().prop_map(Act::Send),
        8 => (end.clone(), 1..200usize).prop_map(|(end, bytes)| Act::Deliver(end, bytes)),
        2 => (end.clone(), any::<usize>(), 1..120usize).prop_map(|(e, at, n)| Act::Lose(e, at, n)),
        1 => Just(Act::Reconnect),
        1 => end.clone().prop_map(Act::Reopen),
        2 => end.prop_map(Act::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_loss_of_bytes_loses_repeats_or_reorders_a_message(
        acts in prop::collection::vec(act(), 0..200),
    ) {
        let mut wire = Wire::new();
        let mut sent = [0u32, 0];
        for act in acts {
            match act {
                Act::Send(from) => {
                    if wire.ends[from].send(&sent[from]).is_ok() {
                        sent[from] += 1;
                    }
                    wire.take(from);
                }
                Act::Deliver(at, bytes) => wire.deliver(at, bytes),
                Act::Lose(at, position, bytes) => {
                    let stream = &mut wire.under_way[at];
                    if !stream.is_empty() {
                        let start = position % stream.len();
                        let end = (start + bytes).min(stream.len());
                        stream.drain(start..end);
                    }
                }
                Act::Reconnect => wire.reconnect(),
                Act::Reopen(at) => {
                    wire.under_way = [Vec::new(), Vec::new()];
                    wire.ends[at].reconnected();
                    wire.take(at);
                }
                Act::Tick(at) => wire.tick(at),
            }
        }
        wire.settle();
        for receiver in [0, 1] {
            let all: Vec<u32> = (0..sent[1 - receiver]).collect();
            prop_assert_eq!(&wire.got[receiver], &all);
            prop_assert_eq!(wire.sessions[receiver], 1);
        }
    }
}

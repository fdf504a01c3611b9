//! The channel between an agent and a daemon, which loses bytes.

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::link::{Link, Received};

use crate::mended;

/// The first byte says which: what a link makes of anything, or what two links make of losses.
pub fn check(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((0..128, stream)) => {
            anything(stream);
            anything(&mended::frames(stream));
        }
        Some((128.., acts)) => losses(acts),
    }
}

/// Of a link's own frames, without messages.
const ANSWER: usize = 256;

/// Answers to a piece of a stream are bounded by what waits to be acknowledged.
fn anything(stream: &[u8]) {
    let mut link: Link<ToAgent, FromAgent> = Link::new(1);
    link.reconnected();
    for _ in 0..3 {
        link.send(&ToAgent::ReportDevices).expect("room");
    }
    for piece in stream.chunks(64) {
        let received = link.receive(piece);
        let messages = received
            .iter()
            .filter(|what| matches!(what, Received::Message(_)))
            .count();
        assert!(messages <= stream.len(), "{messages} messages");
        let said = link.take_output().len();
        assert!(
            said <= 4 * ANSWER,
            "{said} bytes in answer to {}",
            piece.len()
        );
        link.tick();
        let said = link.take_output().len();
        assert!(said <= 4 * ANSWER, "{said} bytes in answer to nothing");
        assert!(link.unacked() <= 3);
    }
}

/// Two ends and the bytes under way to each.
struct Wire {
    ends: [Link<u32, u32>; 2],
    under_way: [Vec<u8>; 2],
    sent: [u32; 2],
    got: [u32; 2],
}

/// Whatever is lost, each message arrives once and in order. A byte says what happens and to whom,
/// the next one how much.
fn losses(acts: &[u8]) {
    let mut wire = Wire {
        ends: [Link::new(10), Link::new(20)],
        under_way: [Vec::new(), Vec::new()],
        sent: [0, 0],
        got: [0, 0],
    };
    wire.reconnect();
    for act in acts.as_chunks::<2>().0 {
        let [what, amount] = *act;
        let (end, amount) = (usize::from(what & 1), usize::from(amount));
        match (what >> 1) % 8 {
            0 | 1 => wire.send(end),
            2 | 3 => wire.deliver(end, amount),
            4 => wire.lose(end, amount, usize::from(what >> 4) * 8 + 1),
            5 => wire.reconnect(),
            6 => wire.reopen(end),
            _ => wire.tick(end),
        }
    }
    wire.settle();
    assert_eq!(wire.got, [wire.sent[1], wire.sent[0]]);
}

impl Wire {
    fn take(&mut self, from: usize) {
        let bytes = self.ends[from].take_output();
        self.under_way[1 - from].extend(bytes);
    }

    fn note(&mut self, at: usize, received: Vec<Received<u32>>) {
        for what in received {
            match what {
                Received::Message(message) => {
                    assert_eq!(message, self.got[at], "the next one");
                    self.got[at] += 1;
                }
                Received::Session { .. } | Received::Resumed => {}
                Received::Malformed(_) | Received::Version { .. } => panic!("{what:?}"),
            }
        }
        self.take(at);
    }

    fn send(&mut self, from: usize) {
        if self.ends[from].send(&self.sent[from]).is_ok() {
            self.sent[from] += 1;
        }
        self.take(from);
    }

    fn deliver(&mut self, at: usize, bytes: usize) {
        let bytes = bytes.min(self.under_way[at].len());
        let now: Vec<u8> = self.under_way[at].drain(..bytes).collect();
        let received = self.ends[at].receive(&now);
        self.note(at, received);
    }

    fn lose(&mut self, at: usize, position: usize, bytes: usize) {
        let stream = &mut self.under_way[at];
        let start = position.min(stream.len());
        let end = (start + bytes).min(stream.len());
        stream.drain(start..end);
    }

    fn tick(&mut self, at: usize) {
        let received = self.ends[at].tick();
        self.note(at, received);
    }

    /// Only one side sees that the stream is another one.
    fn reopen(&mut self, at: usize) {
        self.under_way = [Vec::new(), Vec::new()];
        self.ends[at].reconnected();
        self.take(at);
    }

    fn reconnect(&mut self) {
        for end in [0, 1] {
            self.reopen(end);
        }
    }

    /// Until nothing moves without loss.
    fn settle(&mut self) {
        for round in 0..200 {
            for end in [0, 1] {
                self.deliver(end, usize::MAX);
            }
            let quiet = self.under_way.iter().all(Vec::is_empty);
            let done = |end: &Link<u32, u32>| end.unacked() == 0 && end.is_established();
            match (quiet, self.ends.iter().all(done)) {
                (true, true) => return,
                (true, false) => self.tick(round % 2),
                (false, _) => {}
            }
        }
        let [a, b] = &self.ends;
        panic!("unacknowledged: {} and {}", a.unacked(), b.unacked());
    }
}

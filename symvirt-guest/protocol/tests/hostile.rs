//! What comes from other processes may be anything: whatever is read, nothing panics, and what is
//! understood is what was meant. Frames of every kind of message are damaged byte by byte, cut and
//! joined; what still decodes is fed to the coordinator.

mod targets;

use proptest::collection::vec;
use proptest::prelude::*;
use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::frame::{decode_payload, encode};
use symvirt_protocol::gang::{Gang, GuestId};
use symvirt_protocol::ids::{Epoch, ObjectId, ProcId};
use symvirt_protocol::rank::{
    Blob, FromRank, Join, Stall, SwitchOrder, SyncSend, ToRank, Welcome, WorkerCount,
};
use symvirt_protocol::transport::{Interconnect, Transports};
use targets::read;

const PROCESSES: [ProcId; 3] = [ProcId(1), ProcId(2), ProcId(3)];

fn object() -> impl Strategy<Value = ObjectId> {
    (0..PROCESSES.len(), 0..3u32).prop_map(|(process, index)| ObjectId {
        process: PROCESSES[process],
        index,
    })
}

fn counts() -> impl Strategy<Value = Vec<WorkerCount>> {
    vec(
        (object(), any::<u64>()).prop_map(|(worker, count)| WorkerCount { worker, count }),
        0..4,
    )
}

fn blobs() -> impl Strategy<Value = Vec<Blob>> {
    let blob = (object(), vec(any::<u8>(), 0..40));
    vec(
        blob.prop_map(|(object, bytes)| Blob { object, bytes }),
        0..4,
    )
}

fn syncs() -> impl Strategy<Value = Vec<SyncSend>> {
    let sync = (object(), 0..4u64, any::<u64>());
    vec(
        sync.prop_map(|(worker, id, tag)| SyncSend {
            sender: worker.process,
            id,
            worker,
            tag,
        }),
        0..3,
    )
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (0..4u64).prop_map(Epoch)
}

fn from_rank() -> impl Strategy<Value = FromRank> {
    let join = (0..PROCESSES.len(), any::<u32>(), ".{0,8}", epoch());
    let stall = Stall::default();
    prop_oneof![
        join.prop_map(|(process, pid, text, epoch)| FromRank::Join(Join {
            process: PROCESSES[process],
            pid,
            program: text.clone(),
            mpi_rank: Some(pid),
            ucx_version: text,
            epoch,
            blobs: Vec::new(),
        })),
        counts().prop_map(|sent| FromRank::Leave { sent }),
        (epoch(), blobs(), counts(), vec(object(), 0..3)).prop_map(
            |(epoch, blobs, hellos, opens)| FromRank::Published {
                epoch,
                blobs,
                hellos,
                opens
            }
        ),
        epoch().prop_map(|epoch| FromRank::Ready { epoch }),
        (epoch(), ".{0,8}").prop_map(|(epoch, reason)| FromRank::Veto { epoch, reason }),
        syncs().prop_map(|syncs| FromRank::Matched { syncs }),
        epoch().prop_map(move |epoch| FromRank::Drained { epoch, stall }),
        epoch().prop_map(move |epoch| FromRank::Released {
            epoch,
            release_us: 1,
            stall: Some(stall)
        }),
        epoch().prop_map(move |epoch| FromRank::Opened { epoch, stall }),
        epoch().prop_map(|epoch| FromRank::Aborted { epoch }),
    ]
}

fn to_rank() -> impl Strategy<Value = ToRank> {
    prop_oneof![
        epoch().prop_map(|epoch| ToRank::Welcome(Welcome {
            epoch,
            transports: Transports::default(),
        })),
        (epoch(), blobs(), counts(), vec(object(), 0..3)).prop_map(
            |(epoch, table, hellos, gone)| ToRank::Peers {
                epoch,
                table,
                hellos,
                gone
            }
        ),
        epoch().prop_map(|epoch| ToRank::Commit {
            epoch,
            order: SwitchOrder::MakeBeforeBreak
        }),
        vec(any::<u64>(), 0..5).prop_map(|ids| ToRank::Matched { ids }),
        any::<(u8, u32)>().prop_map(|(percent, millis)| ToRank::SlowDown { percent, millis }),
        epoch().prop_map(|epoch| ToRank::Abort { epoch }),
    ]
}

/// Where a frame says how long its payload is.
const LENGTH: std::ops::Range<usize> = 8..12;

/// Positions (reduced to the length) and new bytes, and where to cut, if at all.
type Damage = (Vec<(usize, u8)>, Option<usize>);

fn damage() -> impl Strategy<Value = Damage> {
    let changes = vec((any::<usize>(), any::<u8>()), 0..6);
    (changes, proptest::option::of(any::<usize>()))
}

fn damaged(mut bytes: Vec<u8>, (changes, cut): &Damage) -> Vec<u8> {
    for (position, byte) in changes {
        let length = bytes.len().max(1);
        if let Some(place) = bytes.get_mut(position % length) {
            *place = *byte;
        }
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % (bytes.len() + 1));
    }
    bytes
}

/// The payload alone, without the checksum that keeps most damage out.
fn payload(frame: &[u8]) -> Vec<u8> {
    frame[symvirt_protocol::frame::HEADER..].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_to_their_end(stream in vec(any::<u8>(), 0..400), piece in 1..50u8) {
        let mut input = vec![piece];
        input.extend(stream);
        targets::stream(&input);
    }

    #[test]
    fn any_payload_is_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        targets::payload(&bytes);
    }

    #[test]
    fn the_coordinator_takes_any_bytes_of_an_agent(bytes in vec(any::<u8>(), 0..400)) {
        targets::coordinator(&bytes);
    }

    #[test]
    fn a_link_takes_any_bytes(bytes in vec(any::<u8>(), 0..400)) {
        targets::link(&bytes);
    }

    #[test]
    fn a_damaged_frame_takes_no_other_with_it(
        first in from_rank(), damage in damage(), second in from_rank(), piece in 1..50usize,
    ) {
        let whole = encode(&first).expect("short");
        let after = encode(&second).expect("short");
        let mut bytes = damaged(whole.clone(), &damage);
        // A length that lies may swallow as much as it announces, which takes long to send.
        match (bytes.get_mut(LENGTH), whole.get(LENGTH)) {
            (Some(there), Some(meant)) => there.copy_from_slice(meant),
            _ => bytes.clone_from(&whole),
        }
        let harmless = bytes == whole;
        // A frame that was cut takes what it lacks from the next: enough of them follow.
        let mut stream = bytes;
        let repeats = whole.len() * 2 / after.len() + 300;
        for _ in 0..repeats {
            stream.extend_from_slice(&after);
        }
        let found = read::<FromRank>(&stream, piece);
        prop_assert!(!found.is_empty());
        prop_assert_eq!(found.last(), Some(&second));
        if harmless {
            prop_assert_eq!(&found[0], &first);
        }
    }

    #[test]
    fn a_damaged_payload_is_a_message_or_an_error(
        rank in from_rank(), host in to_rank(), damage in damage(),
    ) {
        let bytes = damaged(payload(&encode(&rank).expect("short")), &damage);
        if let Ok(message) = decode_payload::<FromRank>(&bytes) {
            // What was understood can be said again.
            prop_assert!(encode(&message).is_ok());
        }
        let bytes = damaged(payload(&encode(&host).expect("short")), &damage);
        if let Ok(message) = decode_payload::<ToRank>(&bytes) {
            prop_assert!(encode(&message).is_ok());
        }
    }

    #[test]
    fn the_coordinator_takes_any_message_of_any_rank_at_any_time(
        said in vec((0..PROCESSES.len(), from_rank(), damage(), 0..16u8), 1..60),
    ) {
        let mut gang = Gang::new(Interconnect::Native);
        let guest = GuestId("guest".to_owned());
        gang.hear(&guest, FromAgent::Hello {
            guest: "guest".to_owned(),
            agent_version: String::new(),
            ranks: Vec::new(),
            memory: Box::default(),
        });
        for (process, message, damage, also) in said {
            let bytes = damaged(payload(&encode(&message).expect("short")), &damage);
            let message = decode_payload(&bytes).unwrap_or(message);
            gang.hear(&guest, FromAgent::Ranks(vec![(PROCESSES[process], message)]));
            targets::command(&mut gang, also);
        }
    }
}

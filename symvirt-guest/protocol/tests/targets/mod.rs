//! What is done with bytes that another process has sent: functions of bytes, as a fuzzer would call
//! them, too.

use serde::Serialize;
use serde::de::DeserializeOwned;
use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::frame::{Decoder, decode_payload, encode};
use symvirt_protocol::gang::{Gang, GuestId};
use symvirt_protocol::ids::ProcId;
use symvirt_protocol::link::Link;
use symvirt_protocol::query::{Answer, Query};
use symvirt_protocol::rank::{FromRank, SwitchOrder, ToRank};
use symvirt_protocol::transport::Interconnect;

/// Everything that a stream holds for somebody who expects messages of one kind.
pub fn read<T: DeserializeOwned>(stream: &[u8], piece: usize) -> Vec<T> {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(_) => {}
            }
        }
    }
    found
}

/// Any bytes on any of the streams are read to their end.
pub fn stream(bytes: &[u8]) {
    let (piece, bytes) = bytes.split_first().unwrap_or((&1, &[]));
    let piece = usize::from(*piece);
    read::<FromRank>(bytes, piece);
    read::<ToRank>(bytes, piece);
    read::<FromAgent>(bytes, piece);
    read::<ToAgent>(bytes, piece);
    read::<Query>(bytes, piece);
    read::<Answer>(bytes, piece);
}

/// Any payload is a message, which can be said again, or an error.
pub fn payload(bytes: &[u8]) {
    again::<FromRank>(bytes);
    again::<ToRank>(bytes);
    again::<FromAgent>(bytes);
    again::<ToAgent>(bytes);
    again::<Query>(bytes);
    again::<Answer>(bytes);
}

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = decode_payload::<T>(bytes) {
        assert!(encode(&message).is_ok());
    }
}

/// The reliable link takes any bytes, and what it says to them stays bounded.
pub fn link(bytes: &[u8]) {
    let mut link: Link<ToAgent, FromAgent> = Link::new(1);
    link.reconnected();
    for piece in bytes.chunks(64) {
        link.receive(piece);
        link.tick();
        let said = link.take_output().len();
        assert!(
            said <= 64 * 1024,
            "{said} bytes in answer to {}",
            piece.len()
        );
    }
}

/// The coordinator takes any message of any agent at any time. One byte says what the daemon does
/// and how many bytes a message follows with.
pub fn coordinator(mut bytes: &[u8]) {
    let mut gang = Gang::new(Interconnect::Native);
    let guest = GuestId("guest".to_owned());
    while let Some((&what, rest)) = bytes.split_first() {
        bytes = rest;
        command(&mut gang, what);
        let Some((said, rest)) = bytes.split_at_checked(usize::from(what)) else {
            return;
        };
        bytes = rest;
        if let Ok(message) = decode_payload::<FromAgent>(said) {
            gang.hear(&guest, message);
        } else if let Ok(message) = decode_payload::<FromRank>(said) {
            let process = ProcId(u64::from(what % 3) + 1);
            gang.hear(&guest, FromAgent::Ranks(vec![(process, message)]));
        }
    }
}

/// What the daemon may do in between; mostly nothing.
pub fn command(gang: &mut Gang, what: u8) {
    let epoch = gang.next_epoch();
    match what % 16 {
        0 => drop(gang.switch(epoch, Interconnect::Fallback, SwitchOrder::MakeBeforeBreak)),
        1 => drop(gang.switch(epoch, Interconnect::Fallback, SwitchOrder::BreakBeforeMake)),
        2 => drop(gang.rebuild(Interconnect::Native)),
        3 => drop(gang.abort()),
        4 => drop(gang.time_out()),
        _ => {}
    }
}

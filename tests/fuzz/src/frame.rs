//! Frames on a stream: ranks to agents, agents to daemons.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::frame::{Decoder, FrameError, HEADER, decode_payload, encode, length_of};
use symvirt_protocol::query::{Answer, Query};
use symvirt_protocol::rank::{FromRank, ToRank};

use crate::mended;

/// Kinds of messages.
const KINDS: u8 = 6;

/// The first byte says what is expected and where the stream is cut, the rest is the stream; or all
/// is a payload.
pub fn check(bytes: &[u8]) {
    let (first, stream) = bytes.split_first().unwrap_or((&0, &[]));
    let piece = usize::from(*first / KINDS) + 1;
    let streams = match first % KINDS {
        0 => streams::<FromRank>,
        1 => streams::<ToRank>,
        2 => streams::<FromAgent>,
        3 => streams::<ToAgent>,
        4 => streams::<Query>,
        _ => streams::<Answer>,
    };
    streams(stream, piece);
    streams(&mended::frames(stream), piece);
    said_again(decode_payload::<FromRank>(bytes).ok());
    said_again(decode_payload::<ToRank>(bytes).ok());
    said_again(decode_payload::<FromAgent>(bytes).ok());
    said_again(decode_payload::<ToAgent>(bytes).ok());
    said_again(decode_payload::<Query>(bytes).ok());
    said_again(decode_payload::<Answer>(bytes).ok());
}

/// Bound of everything that a message is.
pub trait Message: Serialize + DeserializeOwned + PartialEq + Debug {}

impl<T: Serialize + DeserializeOwned + PartialEq + Debug> Message for T {}

type Found<T> = Vec<Result<T, FrameError>>;

/// What a stream in such pieces holds.
fn read<T: Message>(stream: &[u8], piece: usize) -> Found<T> {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in stream.chunks(piece) {
        decoder.push(piece);
        while let Some(next) = decoder.next().transpose() {
            found.push(next);
        }
    }
    let frames = found
        .iter()
        .filter(|next| !matches!(next, Err(FrameError::TooLong { .. })))
        .count();
    // What is left over belongs to no frame.
    decoder.reset();
    let skipped = usize::try_from(decoder.skipped()).expect("a stream in memory");
    assert!(
        skipped + frames * HEADER <= stream.len(),
        "{frames} frames and {skipped} bytes in {}",
        stream.len()
    );
    found
}

fn streams<T: Message>(stream: &[u8], piece: usize) {
    let whole = read::<T>(stream, stream.len().max(1));
    assert_eq!(read::<T>(stream, piece), whole, "in pieces of {piece}");
    let cut = read::<T>(
        &stream[..stream.len().saturating_sub(piece)],
        stream.len().max(1),
    );
    assert!(whole.starts_with(&cut), "{cut:?} of {whole:?}");
    for message in whole {
        said_again(message.ok());
    }
}

/// A message that was understood is one that can be sent, and is understood as the same.
pub fn said_again<T: Message>(message: Option<T>) {
    let Some(message) = message else { return };
    let frame = encode(&message).expect("shorter than what it was read from, or little longer");
    assert_eq!(length_of(&message).expect("as encoded"), frame.len());
    assert_eq!(decode_payload::<T>(&frame[HEADER..]).as_ref(), Ok(&message));
}

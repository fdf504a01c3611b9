//! Bytes on the wire.
//!
//! ```text
//!  0        4         6        8        12        16          16+len
//!  ├ magic ─┼ version ┼ flags ─┼ length ┼ crc32 ──┼ payload ───┤
//! ```
//!
//! All integers little-endian; `crc32` (IEEE) covers version, flags, length and payload; the
//! payload is postcard. The magic lets a reader find the next frame on a stream that lost bytes
//! (a virtio-serial port across a switchover).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PROTOCOL_VERSION;

/// `SYMV`.
pub const MAGIC: [u8; 4] = *b"SYMV";
/// Bytes before the payload.
pub const HEADER: usize = 16;
/// Longest payload that is accepted or made: 16 MiB, the address table of some thousands of ranks.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The peer speaks another version.
    #[error("peer speaks protocol version {theirs}, this is version {PROTOCOL_VERSION}")]
    Version {
        /// Version in the header.
        theirs: u16,
    },
    /// Longer than [`MAX_PAYLOAD`].
    #[error("frame of {length} bytes, the limit is {MAX_PAYLOAD}")]
    TooLong {
        /// Length in the header, or of the message to be sent.
        length: usize,
    },
    /// The payload is not the expected message.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Encodes one message as a frame.
///
/// # Errors
/// [`FrameError::TooLong`]; the message is not sent in part.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; HEADER])?;
    let length = frame.len() - HEADER;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong { length });
    }
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    frame[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    let crc = checksum(&frame);
    frame[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(frame)
}

/// Bytes of the frame that [`encode`] would make, without making it.
///
/// # Errors
/// As [`encode`], but for the length.
pub fn length_of<T: Serialize>(message: &T) -> Result<usize, FrameError> {
    let size = postcard::ser_flavors::Size::default();
    Ok(HEADER + postcard::serialize_with_flavor(message, size)?)
}

fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[4..12]);
    hasher.update(&frame[HEADER..]);
    hasher.finalize()
}

/// Decodes a whole payload; bytes left over make it malformed.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload)? {
        (message, []) => Ok(message),
        _ => Err(FrameError::Malformed(
            postcard::Error::DeserializeBadEncoding,
        )),
    }
}

/// Whether a valid frame begins here and is complete.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return false;
    };
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let crc = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    header[..4] == MAGIC
        && length <= MAX_PAYLOAD
        && bytes
            .get(..HEADER + length)
            .is_some_and(|frame| checksum(frame) == crc)
}

/// Cuts a byte stream into messages. Holds at most one frame and what was pushed beyond it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    skipped: u64,
}

impl Decoder {
    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that belonged to no frame, in all.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next whole message, `None` if more bytes are needed. A frame whose checksum fails is
    /// skipped byte by byte until the next magic.
    ///
    /// # Errors
    /// The offending frame is consumed: the next call goes on behind it.
    #[expect(
        clippy::should_implement_trait,
        reason = "each call chooses its message type"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            self.seek_magic();
            let Some(header) = self.buffer.first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let theirs = u16::from_le_bytes([header[4], header[5]]);
            let length =
                u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let crc = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
            if length > MAX_PAYLOAD {
                self.skip(1);
                return Err(FrameError::TooLong { length });
            }
            let end = HEADER + length;
            if self.buffer.len() < end {
                return Ok(None);
            }
            if checksum(&self.buffer[..end]) != crc {
                self.skip(1);
                continue;
            }
            let message = if theirs == PROTOCOL_VERSION {
                decode_payload(&self.buffer[HEADER..end])
            } else {
                Err(FrameError::Version { theirs })
            };
            self.buffer.drain(..end);
            return message.map(Some);
        }
    }

    /// Gives up a frame whose rest was lost: drops what precedes the first whole frame behind it.
    /// Without such a frame nothing is dropped, so a long one that is still arriving is safe.
    /// A reader of a lossy stream calls this from time to time; scans the whole buffer.
    pub fn resync(&mut self) {
        let behind_head = self.buffer.windows(4).enumerate().skip(1);
        let candidates = behind_head
            .filter(|(_, window)| *window == MAGIC)
            .map(|(at, _)| at);
        let whole = candidates
            .into_iter()
            .find(|at| is_whole(&self.buffer[*at..]));
        if let Some(start) = whole
            && !is_whole(&self.buffer)
        {
            self.skip(start);
        }
    }

    /// Forgets everything that is buffered: the stream is another one from here on.
    pub fn reset(&mut self) {
        self.skip(self.buffer.len());
    }

    fn seek_magic(&mut self) {
        let found = self.buffer.windows(4).position(|window| window == MAGIC);
        let keep_tail = self.buffer.len().saturating_sub(MAGIC.len() - 1);
        self.skip(found.unwrap_or(keep_tail));
    }

    fn skip(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.skipped += bytes as u64;
    }
}

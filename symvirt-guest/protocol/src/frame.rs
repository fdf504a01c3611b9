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

/// A frame's header, as it came.
struct Header {
    version: u16,
    length: usize,
    crc: u32,
}

impl Header {
    /// The header of a frame that begins here; `None` if that is not all here.
    fn read(bytes: &[u8]) -> Option<Header> {
        let header = bytes.first_chunk::<HEADER>()?;
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        Some(Header {
            version: u16::from_le_bytes([header[4], header[5]]),
            length: word(8) as usize,
            crc: word(12),
        })
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == MAGIC)
}

/// Bytes whose checksum may turn out wrong, for each byte that arrives: what looks like frames
/// within frames takes no longer than that.
const EFFORT: usize = 8;
/// The most that is saved up of it.
const MAX_EFFORT: usize = EFFORT * 2 * MAX_PAYLOAD;

/// Cuts a byte stream into messages. Holds at most one frame and what was pushed beyond it.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where what is not done with begins in it.
    start: usize,
    skipped: u64,
    effort: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            buffer: Vec::new(),
            start: 0,
            skipped: 0,
            effort: MAX_EFFORT,
        }
    }
}

impl Decoder {
    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
        let more = bytes.len().saturating_mul(EFFORT);
        self.effort = self.effort.saturating_add(more).min(MAX_EFFORT);
    }

    /// Bytes that belonged to no frame, in all.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next whole message, `None` if more bytes are needed. A frame whose checksum fails is
    /// skipped byte by byte until the next magic; a stream that is nothing but such frames is
    /// dropped as far as it has come.
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
            let Some(header) = Header::read(self.rest()) else {
                return Ok(None);
            };
            let Header {
                version: theirs,
                length,
                crc,
            } = header;
            if length > MAX_PAYLOAD {
                self.skip(1);
                return Err(FrameError::TooLong { length });
            }
            let end = HEADER + length;
            let Some(frame) = self.rest().get(..end) else {
                return Ok(None);
            };
            if checksum(frame) != crc {
                match self.spend(end) {
                    true => self.skip(1),
                    false => self.reset(),
                }
                continue;
            }
            let message = if theirs == PROTOCOL_VERSION {
                decode_payload(&frame[HEADER..])
            } else {
                Err(FrameError::Version { theirs })
            };
            self.start += end;
            return message.map(Some);
        }
    }

    /// Gives up a frame whose rest was lost: drops what precedes the first whole frame behind it.
    /// Without such a frame nothing is dropped, so a long one that is still arriving is safe.
    /// A reader of a lossy stream calls this from time to time; scans the whole buffer.
    pub fn resync(&mut self) {
        if self.is_whole(0) {
            return;
        }
        let mut at = 1;
        while let Some(found) = self.rest().get(at..).and_then(find_magic) {
            at += found;
            if self.is_whole(at) {
                self.skip(at);
                return;
            }
            at += 1;
        }
    }

    /// Forgets everything that is buffered: the stream is another one from here on.
    pub fn reset(&mut self) {
        self.skip(self.rest().len());
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Whether a valid frame begins there and is complete; not if finding out takes too long.
    fn is_whole(&mut self, at: usize) -> bool {
        let rest = &self.rest()[at..];
        let Some(Header { length, crc, .. }) = Header::read(rest) else {
            return false;
        };
        let end = HEADER.saturating_add(length);
        let Some(frame) = rest.get(..end).filter(|_| rest.starts_with(&MAGIC)) else {
            return false;
        };
        if length > MAX_PAYLOAD || end > self.effort {
            return false;
        }
        let whole = checksum(frame) == crc;
        if !whole {
            self.effort -= end;
        }
        whole
    }

    /// So many bytes were looked at in vain; false if that were too many by now.
    fn spend(&mut self, bytes: usize) -> bool {
        let left = self.effort.checked_sub(bytes);
        self.effort = left.unwrap_or(self.effort);
        left.is_some()
    }

    fn seek_magic(&mut self) {
        let keep_tail = self.rest().len().saturating_sub(MAGIC.len() - 1);
        self.skip(find_magic(self.rest()).unwrap_or(keep_tail));
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.skipped += bytes as u64;
    }
}

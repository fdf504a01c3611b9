//! The worker address that the application passes around: UCX's own, and in front of it whose it
//! is and from which epoch, so that an address packed before a switch still resolves after it.
//!
//! ```text
//!  0        8         16       20      28        32
//!  ├ magic ─┼ process ┼ index ─┼ epoch ┼ length ─┼ UCX address …
//! ```
//! Integers are little-endian. A peer of another version of the library has another magic.

use std::slice;

use symvirt_protocol::ids::{Epoch, ProcId, WorkerId};

const MAGIC: [u8; 8] = *b"SYMVADR1";
const HEADER: usize = 32;
/// UCX addresses are some hundred bytes; a length beyond this is not one of ours.
const MAX_LENGTH: usize = 1 << 20;

/// A parsed address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed<'a> {
    pub worker: WorkerId,
    pub epoch: Epoch,
    pub bytes: &'a [u8],
}

/// Packs an address of ours.
pub fn pack(worker: WorkerId, epoch: Epoch, bytes: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(HEADER + bytes.len());
    blob.extend_from_slice(&MAGIC);
    blob.extend_from_slice(&worker.process.0.to_le_bytes());
    blob.extend_from_slice(&worker.index.to_le_bytes());
    blob.extend_from_slice(&epoch.0.to_le_bytes());
    blob.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    blob.extend_from_slice(bytes);
    blob
}

/// Parses an address; `None` if it is a plain UCX address.
///
/// # Safety
/// `address` came out of `ucp_worker_get_address` of some process, ours or plain UCX's, whole.
pub unsafe fn parse<'a>(address: *const u8) -> Option<Parsed<'a>> {
    // SAFETY: UCX's own addresses are longer than the magic, and begin otherwise.
    let magic = unsafe { slice::from_raw_parts(address, MAGIC.len()) };
    if magic != MAGIC {
        return None;
    }
    // SAFETY: with the magic, the header is there.
    let header = unsafe { slice::from_raw_parts(address, HEADER) };
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let length = half(28) as usize;
    if length > MAX_LENGTH {
        return None;
    }
    // SAFETY: the packer wrote `length` bytes behind the header.
    let bytes = unsafe { slice::from_raw_parts(address.add(HEADER), length) };
    let worker = WorkerId {
        process: ProcId(word(8)),
        index: half(16),
    };
    Some(Parsed {
        worker,
        epoch: Epoch(word(20)),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_packing() {
        let worker = WorkerId {
            process: ProcId(0x1234_5678_9abc_def0),
            index: 7,
        };
        let blob = pack(worker, Epoch(42), b"opaque");
        // SAFETY: packed just now.
        let parsed = unsafe { parse(blob.as_ptr()) }.expect("one of ours");
        assert_eq!(
            parsed,
            Parsed {
                worker,
                epoch: Epoch(42),
                bytes: b"opaque"
            }
        );
    }

    #[test]
    fn a_plain_ucx_address_is_recognised() {
        let plain = [0x4du8; 64];
        // SAFETY: 64 readable bytes.
        assert_eq!(unsafe { parse(plain.as_ptr()) }, None);
    }
}

//! What the application passes around so that peers reach an object: UCX's own bytes, and in
//! front of them whose they are and from which epoch, so that what was packed before a switch
//! still resolves after it.
//!
//! ```text
//!  0        8         16       20      28        32
//!  ├ magic ─┼ process ┼ index ─┼ epoch ┼ length ─┼ UCX's bytes …
//!                                                 └ of a key: where the memory is (24 bytes), then
//!                                                   UCX's bytes …
//! ```
//! Integers are little-endian. A peer of another version of the library has another magic.

use std::slice;

use symvirt_protocol::ids::{Epoch, ObjectId, ProcId};

use crate::object::near::Place;

const HEADER: usize = 32;
/// UCX's bytes are some hundred; a length beyond this is not one of ours.
const MAX_LENGTH: usize = 1 << 20;

/// What is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A worker's address.
    Worker,
    /// The remote key of registered memory.
    Memory,
}

impl Kind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Kind::Worker => *b"SYMVADR1",
            Kind::Memory => *b"SYMVKEY2",
        }
    }
}

/// What was packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed<'a> {
    pub object: ObjectId,
    pub epoch: Epoch,
    /// Of a key: where the memory is.
    pub place: Option<&'a [u8; Place::LENGTH]>,
    /// UCX's.
    pub bytes: &'a [u8],
}

/// Packs UCX's address of a worker.
pub fn pack_address(object: ObjectId, epoch: Epoch, bytes: &[u8]) -> Vec<u8> {
    pack(Kind::Worker, object, epoch, &[], bytes)
}

/// Packs UCX's key, and where the memory is.
pub fn pack_key(
    object: ObjectId,
    epoch: Epoch,
    place: &[u8; Place::LENGTH],
    bytes: &[u8],
) -> Vec<u8> {
    pack(Kind::Memory, object, epoch, place, bytes)
}

fn pack(kind: Kind, object: ObjectId, epoch: Epoch, place: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(HEADER + place.len() + bytes.len());
    blob.extend_from_slice(&kind.magic());
    blob.extend_from_slice(&object.process.0.to_le_bytes());
    blob.extend_from_slice(&object.index.to_le_bytes());
    blob.extend_from_slice(&epoch.0.to_le_bytes());
    blob.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    blob.extend_from_slice(place);
    blob.extend_from_slice(bytes);
    blob
}

/// Whether `blob` was packed by a process of ours.
///
/// # Safety
/// `blob` came out of some process's UCX or [`pack`], whole.
pub unsafe fn is_ours(kind: Kind, blob: *const u8) -> bool {
    // SAFETY: UCX's own addresses and packed keys are longer than the magic, and begin otherwise.
    unsafe { slice::from_raw_parts(blob, 8) == kind.magic() }
}

/// Unpacks; `None` if the bytes are plain UCX's.
///
/// # Safety
/// As for [`is_ours`].
pub unsafe fn parse<'a>(kind: Kind, blob: *const u8) -> Option<Parsed<'a>> {
    // SAFETY: by the caller's promise.
    if !unsafe { is_ours(kind, blob) } {
        return None;
    }
    // SAFETY: with the magic, the header is there.
    let header = unsafe { slice::from_raw_parts(blob, HEADER) };
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let length = half(28) as usize;
    if length > MAX_LENGTH {
        return None;
    }
    // SAFETY: the packer wrote a key's place, if it is one, and `length` bytes behind the header.
    let (place, bytes) = unsafe {
        match kind {
            Kind::Worker => (None, slice::from_raw_parts(blob.add(HEADER), length)),
            Kind::Memory => {
                let behind = blob.add(HEADER + Place::LENGTH);
                let place = &*blob.add(HEADER).cast::<[u8; Place::LENGTH]>();
                (Some(place), slice::from_raw_parts(behind, length))
            }
        }
    };
    let object = ObjectId {
        process: ProcId(word(8)),
        index: half(16),
    };
    Some(Parsed {
        object,
        epoch: Epoch(word(20)),
        place,
        bytes,
    })
}

/// A copy in memory that the application frees by `free`; null when there is none.
pub fn for_application(blob: &[u8]) -> *mut u8 {
    // SAFETY: the copy has the blob's length.
    unsafe {
        let copy = libc::malloc(blob.len()).cast::<u8>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(blob.as_ptr(), copy, blob.len());
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: [u8; Place::LENGTH] = [5; Place::LENGTH];

    fn packed(kind: Kind, object: ObjectId, epoch: Epoch, bytes: &[u8]) -> Vec<u8> {
        match kind {
            Kind::Worker => pack_address(object, epoch, bytes),
            Kind::Memory => pack_key(object, epoch, &PLACE, bytes),
        }
    }

    #[test]
    fn what_is_packed_survives_and_keeps_its_kind() {
        let object = ObjectId {
            process: ProcId(0x1234_5678_9abc_def0),
            index: 7,
        };
        for (kind, other, place) in [
            (Kind::Worker, Kind::Memory, None),
            (Kind::Memory, Kind::Worker, Some(&PLACE)),
        ] {
            let blob = packed(kind, object, Epoch(42), b"opaque");
            // SAFETY: packed just now.
            let parsed = unsafe { parse(kind, blob.as_ptr()) }.expect("one of ours");
            let expected = Parsed {
                object,
                epoch: Epoch(42),
                place,
                bytes: b"opaque",
            };
            assert_eq!(parsed, expected);
            // SAFETY: as above.
            assert_eq!(unsafe { parse(other, blob.as_ptr()) }, None);
        }
    }

    #[test]
    fn plain_ucx_bytes_are_recognised() {
        let plain = [0x4du8; 64];
        // SAFETY: 64 readable bytes.
        assert_eq!(unsafe { parse(Kind::Worker, plain.as_ptr()) }, None);
    }

    proptest::proptest! {
        /// Whoever packs is not trusted to be whole: what is announced bounds what is read.
        #[test]
        fn a_damaged_blob_is_read_no_further_than_it_says(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            place in 0..HEADER,
            byte: u8,
        ) {
            let object = ObjectId { process: ProcId(1), index: 2 };
            for kind in [Kind::Worker, Kind::Memory] {
                let mut blob = packed(kind, object, Epoch(3), &bytes);
                blob[place] = byte;
                let announced = u32::from_le_bytes(blob[28..32].try_into().expect("four")) as usize;
                // As much as the limit lets a damaged length announce.
                blob.resize(HEADER + Place::LENGTH + MAX_LENGTH, 0);
                // SAFETY: whole, with as many bytes as the longest may have.
                match unsafe { parse(kind, blob.as_ptr()) } {
                    None => proptest::prop_assert!(place < 8 || announced > MAX_LENGTH),
                    Some(parsed) => proptest::prop_assert_eq!(parsed.bytes.len(), announced),
                }
            }
        }
    }
}

//! Addresses and keys as UCP passes them: by pointer, without a length. Their format is
//! [`symvirt_protocol::packed`]'s.

use std::slice;

use symvirt_protocol::packed::{self, HEADER, MAGIC};
pub use symvirt_protocol::packed::{Kind, Parsed, pack_address, pack_key};

/// Whether `blob` was packed by a process of ours.
///
/// # Safety
/// `blob` came out of some process's UCX, or was packed by [`pack_address`] or [`pack_key`]; whole.
pub unsafe fn is_ours(kind: Kind, blob: *const u8) -> bool {
    // SAFETY: UCX's own addresses and packed keys are longer than the magic, and begin otherwise.
    kind.is_ours(unsafe { &*blob.cast::<[u8; MAGIC]>() })
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
    let length = kind.length(unsafe { &*blob.cast::<[u8; HEADER]>() })?;
    // SAFETY: the packer wrote as many bytes as its header says.
    packed::parse(kind, unsafe { slice::from_raw_parts(blob, length) })
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
    use symvirt_protocol::ids::{Epoch, ObjectId, ProcId};

    use super::*;

    #[test]
    fn no_byte_behind_what_was_packed_is_needed() {
        let object = ObjectId {
            process: ProcId(1),
            index: 2,
        };
        let blob = pack_address(object, Epoch(3), b"opaque");
        // SAFETY: packed just now, and readable as far as it goes.
        unsafe {
            let parsed = parse(Kind::Worker, blob.as_ptr()).expect("one of ours");
            assert_eq!((parsed.object, parsed.bytes), (object, &b"opaque"[..]));
            assert!(parse(Kind::Memory, blob.as_ptr()).is_none());
        }
    }

    #[test]
    fn plain_ucx_bytes_are_recognised_by_their_beginning() {
        let plain = [0x4d; MAGIC];
        // SAFETY: as many bytes as the magic has.
        assert_eq!(unsafe { parse(Kind::Worker, plain.as_ptr()) }, None);
    }
}

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
//!
//! UCP passes addresses and keys without their length: [`Kind::length`] says how much of one there
//! has to be before [`parse`] looks at it.

use crate::ids::{Epoch, ObjectId, ProcId};

/// Bytes of a magic.
pub const MAGIC: usize = 8;
/// Bytes before the place, or UCX's bytes.
pub const HEADER: usize = 32;
/// UCX's bytes are some hundred; a length beyond this is not one of ours.
pub const MAX_LENGTH: usize = 1 << 20;

/// What is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A worker's address.
    Worker,
    /// The remote key of registered memory.
    Memory,
}

impl Kind {
    const fn magic(self) -> [u8; MAGIC] {
        match self {
            Kind::Worker => *b"SYMVADR1",
            Kind::Memory => *b"SYMVKEY2",
        }
    }

    const fn before_bytes(self) -> usize {
        match self {
            Kind::Worker => HEADER,
            Kind::Memory => HEADER + Place::LENGTH,
        }
    }

    /// Whether something that begins so was packed by a process of ours.
    pub fn is_ours(self, begin: &[u8; MAGIC]) -> bool {
        *begin == self.magic()
    }

    /// Bytes of the whole, by its header; `None` if the bytes are plain UCX's.
    pub fn length(self, header: &[u8; HEADER]) -> Option<usize> {
        let length = half(header, 28) as usize;
        (header.starts_with(&self.magic()) && length <= MAX_LENGTH)
            .then(|| self.before_bytes() + length)
    }
}

/// Where registered memory is, for processes of the same machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The owner's process number.
    pub process: u32,
    /// The owner's descriptor of it; -1 if only the owner can reach it.
    pub descriptor: i32,
    /// The owner's address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

impl Place {
    /// Bytes of a packed place.
    pub const LENGTH: usize = 24;

    /// Integers are little-endian, in the order of the fields.
    pub fn pack(&self) -> [u8; Place::LENGTH] {
        let mut packed = [0; Place::LENGTH];
        packed[..4].copy_from_slice(&self.process.to_le_bytes());
        packed[4..8].copy_from_slice(&self.descriptor.to_le_bytes());
        packed[8..16].copy_from_slice(&self.address.to_le_bytes());
        packed[16..].copy_from_slice(&self.length.to_le_bytes());
        packed
    }

    /// What [`Place::pack`] has packed.
    pub fn unpack(packed: &[u8; Place::LENGTH]) -> Place {
        Place {
            process: half(packed, 0),
            descriptor: half(packed, 4).cast_signed(),
            address: word(packed, 8),
            length: word(packed, 16),
        }
    }
}

/// What was packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed<'a> {
    /// Which object it leads to.
    pub object: ObjectId,
    /// When it was packed.
    pub epoch: Epoch,
    /// Of a key: where the memory is.
    pub place: Option<Place>,
    /// UCX's.
    pub bytes: &'a [u8],
}

/// Packs UCX's address of a worker.
pub fn pack_address(object: ObjectId, epoch: Epoch, bytes: &[u8]) -> Vec<u8> {
    pack(Kind::Worker, object, epoch, &[], bytes)
}

/// Packs UCX's key, and where the memory is.
pub fn pack_key(object: ObjectId, epoch: Epoch, place: &Place, bytes: &[u8]) -> Vec<u8> {
    pack(Kind::Memory, object, epoch, &place.pack(), bytes)
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

/// Unpacks what `blob` begins with; `None` if the bytes are plain UCX's, or not all there.
pub fn parse(kind: Kind, blob: &[u8]) -> Option<Parsed<'_>> {
    let header = blob.first_chunk::<HEADER>()?;
    let whole = blob.get(..kind.length(header)?)?;
    let (place, bytes) = match kind {
        Kind::Worker => (None, &whole[HEADER..]),
        Kind::Memory => {
            let (place, bytes) = whole[HEADER..].split_first_chunk()?;
            (Some(Place::unpack(place)), bytes)
        }
    };
    let object = ObjectId {
        process: ProcId(word(header, 8)),
        index: half(header, 16),
    };
    Some(Parsed {
        object,
        epoch: Epoch(word(header, 20)),
        place,
        bytes,
    })
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        process: 4711,
        descriptor: -1,
        address: 0x7fff_1234_5678_9abc,
        length: 1 << 40,
    };

    fn packed(kind: Kind, object: ObjectId, epoch: Epoch, bytes: &[u8]) -> Vec<u8> {
        match kind {
            Kind::Worker => pack_address(object, epoch, bytes),
            Kind::Memory => pack_key(object, epoch, &PLACE, bytes),
        }
    }

    #[test]
    fn a_place_is_unpacked_as_it_was_packed() {
        assert_eq!(Place::unpack(&PLACE.pack()), PLACE);
    }

    #[test]
    fn what_is_packed_survives_and_keeps_its_kind() {
        let object = ObjectId {
            process: ProcId(0x1234_5678_9abc_def0),
            index: 7,
        };
        for (kind, other, place) in [
            (Kind::Worker, Kind::Memory, None),
            (Kind::Memory, Kind::Worker, Some(PLACE)),
        ] {
            let blob = packed(kind, object, Epoch(42), b"opaque");
            let expected = Parsed {
                object,
                epoch: Epoch(42),
                place,
                bytes: b"opaque",
            };
            assert_eq!(parse(kind, &blob), Some(expected));
            assert_eq!(parse(other, &blob), None);
            for cut in 0..blob.len() {
                assert_eq!(parse(kind, &blob[..cut]), None, "{cut} bytes of it");
            }
        }
    }

    #[test]
    fn plain_ucx_bytes_are_recognised() {
        assert_eq!(parse(Kind::Worker, &[0x4d; 64]), None);
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
                let announced = half(&blob, 28) as usize;
                // As much as the limit lets a damaged length announce.
                blob.resize(HEADER + Place::LENGTH + MAX_LENGTH, 0);
                match parse(kind, &blob) {
                    None => proptest::prop_assert!(place < 8 || announced > MAX_LENGTH),
                    Some(parsed) => proptest::prop_assert_eq!(parsed.bytes.len(), announced),
                }
            }
        }
    }
}

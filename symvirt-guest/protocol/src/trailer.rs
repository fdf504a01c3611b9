//! What our side appends to the header of an active message whose receiver has to know more than
//! UCX tells: who asks for a reply, and which handler a message with a high id is for. The
//! receiver takes it off before the application sees the header.
//!
//! ```text
//!  … header ├ magic ─┼ process ┼ index ─┼ mode ┼ id ─┤
//!           0        8         16       20     22    24
//! ```
//! Integers are little-endian. A sender without the library appends nothing.

use crate::ids::{ObjectId, ProcId, WorkerId};

/// Bytes of a trailer.
pub const LENGTH: usize = 24;
const MAGIC: [u8; 8] = *b"SYMVAMT1";
/// `UCP_ERR_HANDLING_MODE_PEER`, the highest that there is.
const HIGHEST_MODE: u16 = 1;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Whom a reply goes to.
    pub sender: WorkerId,
    /// `ucp_err_handling_mode_t` of the sender's endpoint: both ends have to agree.
    pub err_mode: u16,
    /// The handler that the message is for.
    pub id: u16,
}

impl Trailer {
    /// The header with the trailer behind it.
    pub fn append(self, header: &[u8]) -> Box<[u8]> {
        let mut whole = Vec::with_capacity(header.len() + LENGTH);
        whole.extend_from_slice(header);
        whole.extend_from_slice(&MAGIC);
        whole.extend_from_slice(&self.sender.process.0.to_le_bytes());
        whole.extend_from_slice(&self.sender.index.to_le_bytes());
        whole.extend_from_slice(&self.err_mode.to_le_bytes());
        whole.extend_from_slice(&self.id.to_le_bytes());
        whole.into_boxed_slice()
    }

    /// Parts a header as it came into what the application sent, and the trailer if there is one.
    #[inline(always)]
    pub fn part(header: &[u8]) -> (&[u8], Option<Trailer>) {
        match header.split_last_chunk::<LENGTH>() {
            Some((before, last)) if last[..8] == MAGIC => match Trailer::read(last) {
                Some(trailer) => (before, Some(trailer)),
                None => (header, None),
            },
            Some(_) | None => (header, None),
        }
    }

    #[cold]
    fn read(bytes: &[u8; LENGTH]) -> Option<Trailer> {
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            process @ ..,
            i0,
            i1,
            i2,
            i3,
            m0,
            m1,
            d0,
            d1,
        ] = *bytes;
        let err_mode = u16::from_le_bytes([m0, m1]);
        let sender = ObjectId {
            process: ProcId(u64::from_le_bytes(process)),
            index: u32::from_le_bytes([i0, i1, i2, i3]),
        };
        let id = u16::from_le_bytes([d0, d1]);
        (err_mode <= HIGHEST_MODE).then_some(Trailer {
            sender,
            err_mode,
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAILER: Trailer = Trailer {
        sender: ObjectId {
            process: ProcId(0x1234_5678_9abc_def0),
            index: 7,
        },
        err_mode: 1,
        id: 40_000,
    };

    #[test]
    fn what_is_appended_is_taken_off_again() {
        for header in [&b""[..], b"h", b"a header that is longer than a trailer"] {
            let whole = TRAILER.append(header);
            assert_eq!(whole.len(), header.len() + LENGTH);
            assert_eq!(Trailer::part(&whole), (header, Some(TRAILER)));
        }
    }

    #[test]
    fn a_header_without_a_trailer_is_left_alone() {
        for length in [0, 1, LENGTH - 1, LENGTH, 100] {
            let header = vec![0x53; length];
            assert_eq!(Trailer::part(&header), (&header[..], None));
        }
    }

    #[test]
    fn a_trailer_that_none_of_us_has_written_is_left_alone() {
        let mut whole = TRAILER.append(b"header");
        whole[6 + 20] = 9;
        assert_eq!(Trailer::part(&whole), (&whole[..], None));
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parted_into_what_it_is_made_of(
            mut header in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            marked: bool,
            place: usize,
            byte: u8,
        ) {
            if marked {
                header = TRAILER.append(&header).into_vec();
            }
            if let Some(length) = std::num::NonZero::new(header.len()) {
                header[place % length] = byte;
            }
            match Trailer::part(&header) {
                (before, None) => proptest::prop_assert_eq!(before, &header[..]),
                (before, Some(trailer)) => {
                    proptest::prop_assert_eq!(&*trailer.append(before), &header[..]);
                    proptest::prop_assert!(trailer.err_mode <= HIGHEST_MODE);
                }
            }
        }
    }
}

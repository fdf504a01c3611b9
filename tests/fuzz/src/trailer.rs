//! Headers of active messages.

use symvirt_protocol::ids::{ObjectId, ProcId};
use symvirt_protocol::trailer::{LENGTH, Trailer};

/// A header as it came, and one that is to be sent.
pub fn check(header: &[u8]) {
    match Trailer::part(header) {
        (before, None) => assert_eq!(before, header),
        (before, Some(trailer)) => {
            assert_eq!(before.len() + LENGTH, header.len());
            assert_eq!(&*trailer.append(before), header);
        }
    }
    let length = header.len();
    let trailer = Trailer {
        sender: ObjectId {
            process: ProcId(length as u64),
            index: 7,
        },
        err_mode: u16::from(length % 2 == 1),
        id: u16::MAX,
    };
    let whole = trailer.append(header);
    assert_eq!(Trailer::part(&whole), (header, Some(trailer)));
}

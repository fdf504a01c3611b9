//! Worker addresses that applications exchange.

use symvirt_protocol::packed::{Kind, pack_address, parse};

/// An address, and whatever follows it.
pub fn check(bytes: &[u8]) {
    let Some(parsed) = parse(Kind::Worker, bytes) else {
        return;
    };
    assert_eq!(parsed.place, None);
    let again = pack_address(parsed.object, parsed.epoch, parsed.bytes);
    assert_eq!(bytes.get(..again.len()), Some(&again[..]));
    for cut in 0..again.len() {
        assert_eq!(
            parse(Kind::Worker, &bytes[..cut]),
            None,
            "{cut} bytes of it"
        );
    }
    assert_eq!(parse(Kind::Memory, bytes), None);
}

//! Remote keys of memory that applications exchange.

use symvirt_protocol::packed::{Kind, pack_key, parse};

/// A key, and whatever follows it.
pub fn check(bytes: &[u8]) {
    let Some(parsed) = parse(Kind::Memory, bytes) else {
        return;
    };
    let place = parsed.place.expect("every key has one");
    let again = pack_key(parsed.object, parsed.epoch, &place, parsed.bytes);
    assert_eq!(bytes.get(..again.len()), Some(&again[..]));
    for cut in 0..again.len() {
        assert_eq!(
            parse(Kind::Memory, &bytes[..cut]),
            None,
            "{cut} bytes of it"
        );
    }
    assert_eq!(parse(Kind::Worker, bytes), None);
}

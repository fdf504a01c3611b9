//! Bytes whose checksums are right, whatever else is wrong with them.

use symvirt_protocol::PROTOCOL_VERSION;
use symvirt_protocol::frame::{HEADER, MAGIC, MAX_PAYLOAD};

/// A stream in which every frame that is all there has this version and its checksum.
pub fn frames(bytes: &[u8]) -> Vec<u8> {
    let mut stream = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = stream[at..].windows(4).position(|window| window == MAGIC) {
        at += found;
        let Some(header) = stream[at..].first_chunk::<HEADER>() else {
            break;
        };
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let end = at + HEADER + length;
        if length > MAX_PAYLOAD || end > stream.len() {
            at += 1;
            continue;
        }
        stream[at + 4..at + 6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&stream[at + 4..at + 12]);
        crc.update(&stream[at + HEADER..end]);
        let crc = crc.finalize();
        stream[at + 12..at + HEADER].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    stream
}

/// A journal in which every line that ends has its number and its checksum.
pub fn journal(bytes: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(bytes.len());
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let record = line
            .strip_suffix(b"\n")
            .and_then(|line| str::from_utf8(line).ok()?.split_once(' '));
        match record {
            Some((_, json)) => {
                let json = numbered(json, number);
                let crc = crc32fast::hash(json.as_bytes());
                mended.extend_from_slice(format!("{crc:08x} {json}\n").as_bytes());
            }
            None => mended.extend_from_slice(line),
        }
    }
    mended
}

fn numbered(json: &str, number: usize) -> String {
    const SEQ: &str = "{\"seq\":";
    match json.strip_prefix(SEQ) {
        Some(rest) => {
            let rest = rest.trim_start_matches(|byte: char| byte.is_ascii_digit());
            format!("{SEQ}{number}{rest}")
        }
        None => json.to_owned(),
    }
}

//! Frames on a stream that cannot be trusted.

use proptest::prelude::*;
use symvirt_protocol::PROTOCOL_VERSION;
use symvirt_protocol::frame::{Decoder, FrameError, HEADER, MAGIC, MAX_PAYLOAD, encode};

fn messages(decoder: &mut Decoder) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match decoder.next::<String>() {
            Ok(Some(message)) => found.push(message),
            Ok(None) => return found,
            Err(_) => {}
        }
    }
}

#[test]
fn a_frame_of_another_version_is_named_and_passed() {
    let mut frame = encode(&"hello").expect("short");
    let theirs = PROTOCOL_VERSION + 1;
    frame[4..6].copy_from_slice(&theirs.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[4..12]);
    hasher.update(&frame[HEADER..]);
    let crc = hasher.finalize();
    frame[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut decoder = Decoder::default();
    decoder.push(&frame);
    decoder.push(&encode(&"next").expect("short"));
    assert_eq!(
        decoder.next::<String>(),
        Err(FrameError::Version { theirs })
    );
    assert_eq!(decoder.next::<String>(), Ok(Some("next".to_owned())));
}

#[test]
fn an_announced_length_beyond_the_limit_is_refused_before_it_is_buffered() {
    let mut header = encode(&"hello").expect("short");
    header[8..12].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    let mut decoder = Decoder::default();
    decoder.push(&header);
    assert_eq!(
        decoder.next::<String>(),
        Err(FrameError::TooLong {
            length: MAX_PAYLOAD + 1
        })
    );
    decoder.push(&encode(&"next").expect("short"));
    assert_eq!(messages(&mut decoder), ["next"]);
}

#[test]
fn a_message_beyond_the_limit_is_not_made() {
    let long = vec![0u8; MAX_PAYLOAD + 1];
    assert!(matches!(encode(&long), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_payload_with_bytes_left_over_is_malformed() {
    let mut decoder = Decoder::default();
    decoder.push(&encode(&(7u8, 8u8)).expect("short"));
    assert!(matches!(
        decoder.next::<u8>(),
        Err(FrameError::Malformed(_))
    ));
    assert_eq!(decoder.next::<u8>(), Ok(None));
}

#[test]
fn a_cut_frame_is_given_up_for_the_whole_one_behind_it() {
    let long = encode(&"x".repeat(100_000)).expect("fits");
    let mut decoder = Decoder::default();
    decoder.push(&long[..500]);
    decoder.push(&encode(&"behind").expect("short"));
    assert_eq!(decoder.next::<String>(), Ok(None), "waits for the rest");
    decoder.resync();
    assert_eq!(decoder.next::<String>(), Ok(Some("behind".to_owned())));
}

#[test]
fn a_frame_that_is_still_arriving_survives_a_resync() {
    let long = "x".repeat(100_000);
    let frame = encode(&long).expect("fits");
    let mut decoder = Decoder::default();
    for chunk in frame.chunks(4096) {
        assert_eq!(decoder.next::<String>(), Ok(None));
        decoder.push(chunk);
        decoder.resync();
    }
    assert_eq!(decoder.next::<String>(), Ok(Some(long)));
    assert_eq!(decoder.skipped(), 0);
}

/// What each byte of would be checked again and again, if nothing bounded that.
#[test]
fn frames_within_frames_take_no_longer_than_what_they_are_made_of() {
    let length = 8 << 20;
    let mut decoder = Decoder::default();
    let mut header = encode(&"").expect("short")[..HEADER].to_vec();
    let mut nested = Vec::with_capacity(length);
    while nested.len() < length {
        // To the end of all, and no frame.
        let rest = (length - nested.len()).saturating_sub(HEADER) as u32;
        header[8..12].copy_from_slice(&rest.to_le_bytes());
        nested.extend_from_slice(&header);
    }
    for piece in nested.chunks(64 << 10) {
        decoder.push(piece);
        assert!(messages(&mut decoder).is_empty());
        decoder.resync();
    }
    // What is said behind it is heard, if need be when it is said again.
    let mut heard = Vec::new();
    for _ in 0..3 {
        decoder.push(&encode(&"behind").expect("short"));
        heard.extend(messages(&mut decoder));
    }
    assert!(heard.contains(&"behind".to_owned()), "{heard:?}");
}

proptest! {
    #[test]
    fn any_cut_of_the_stream_gives_the_same_messages(
        texts in prop::collection::vec(".{0,40}", 0..8),
        cuts in prop::collection::vec(1..50usize, 0..60),
    ) {
        let stream: Vec<u8> = texts.iter().flat_map(|t| encode(t).expect("short")).collect();
        let (mut decoder, mut found, mut rest) = (Decoder::default(), Vec::new(), &stream[..]);
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            decoder.push(now);
            found.extend(messages(&mut decoder));
            rest = later;
        }
        decoder.push(rest);
        found.extend(messages(&mut decoder));
        prop_assert_eq!(found, texts);
    }

    #[test]
    fn garbage_around_frames_costs_none_of_them(
        texts in prop::collection::vec(".{0,40}", 1..6),
        // Without the magic's first byte: garbage that begins a frame is the next property.
        garbage in prop::collection::vec(prop::collection::vec(0..b'S', 0..40), 6),
    ) {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for (text, noise) in texts.iter().zip(&garbage) {
            decoder.push(noise);
            found.extend(messages(&mut decoder));
            decoder.push(&encode(text).expect("short"));
        }
        found.extend(messages(&mut decoder));
        prop_assert_eq!(found, texts);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_invent_a_message(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        magic_at in 0..300usize,
    ) {
        let mut noise = noise;
        if magic_at + 4 <= noise.len() {
            noise[magic_at..magic_at + 4].copy_from_slice(&MAGIC);
        }
        let mut decoder = Decoder::default();
        decoder.push(&noise);
        prop_assert!(messages(&mut decoder).is_empty());
        decoder.resync();
        prop_assert!(messages(&mut decoder).is_empty());
    }
}

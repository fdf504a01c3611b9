//! See [`symvirt_fuzz::peer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::peer::check(bytes));

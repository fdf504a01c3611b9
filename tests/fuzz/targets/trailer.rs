//! See [`symvirt_fuzz::trailer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::trailer::check(bytes));

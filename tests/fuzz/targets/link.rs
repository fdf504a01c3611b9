//! See [`symvirt_fuzz::link`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::link::check(bytes));

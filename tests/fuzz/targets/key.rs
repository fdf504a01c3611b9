//! See [`symvirt_fuzz::key`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::key::check(bytes));

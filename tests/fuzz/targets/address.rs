//! See [`symvirt_fuzz::address`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::address::check(bytes));

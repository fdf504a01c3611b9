//! See [`symvirt_fuzz::monitor`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::monitor::check(bytes));

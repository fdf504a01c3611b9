//! See [`symvirt_fuzz::gang`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::gang::check(bytes));

//! See [`symvirt_fuzz::qmp_line`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::qmp_line::check(bytes));

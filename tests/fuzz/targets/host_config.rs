//! See [`symvirt_fuzz::host_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::host_config::check(bytes));

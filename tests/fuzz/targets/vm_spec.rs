//! See [`symvirt_fuzz::vm_spec`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| symvirt_fuzz::vm_spec::check(bytes));

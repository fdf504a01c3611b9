//! What the end-to-end tests and the benchmarks share.
//!
//! | module | holds |
//! |---|---|
//! | [`apps`] | compiles the C programs of `tests/apps` |
//! | [`built`] | builds `libsymvirt.so` and `symvirt-guest` as users get them |
//! | [`job`] | runs a command within a time limit, with backtraces of what hangs |
//! | [`rehearsal`] | a job under `symvirt-guest rehearse`, and its report |
//! | [`storm`] | such a job among switches, and what is asked of it |
//! | [`bench`] | `symvirt-bench overhead` and `symvirt-bench switch` |
//!
//! Nothing here knows of virtual machines: those tests belong to `symvirt-experiments`.
#![forbid(unsafe_code)]

pub mod apps;
pub mod bench;
pub mod built;
pub mod job;
pub mod rehearsal;
pub mod storm;

//! What the end-to-end tests and the benchmarks share.
//!
//! | module | holds |
//! |---|---|
//! | [`apps`] | compiles the C programs of `tests/apps` |
//! | [`built`] | builds `libsymvirt.so` and `symvirt-guest` as users get them |
//! | [`mpi`] | the MPIs, and how each starts a job |
//! | [`place`] | this machine, or Debian trixie in a directory |
//! | [`wheels`] | MPIs of PyPI, with mpi4py |
//! | [`kept`] | what is costly to make and kept between runs |
//! | [`family`] | a process and all that it started |
//! | [`job`] | runs a command within a time limit, with backtraces of what hangs |
//! | [`rehearsal`] | a job under `symvirt-guest rehearse`, and its report |
//! | [`debian`] | programs of Debian, with and without switches |
//! | [`units`] | the units of `packaging/` under a systemd of a test's own |
//! | [`slurm`] | a site under Slurm, whose `srun` starts jobs |
//! | [`setting`] | how the transports change, and how UCX sends over them |
//! | [`storm`] | such a job among switches, and what is asked of it |
//! | [`soak`] | `symvirt-soak`: storms over everything, and the page made of them |
//! | [`bench`] | `symvirt-bench overhead` and `symvirt-bench switch` |
//!
//! No guest is booted here: tests that need one belong to `symvirt-experiments`.
#![forbid(unsafe_code)]

pub mod apps;
pub mod bench;
#[path = "../../experiments/src/image/bootstrap.rs"]
pub mod bootstrap;
pub mod built;
pub mod debian;
pub mod family;
pub mod job;
pub mod kept;
#[path = "../../experiments/src/image/mirror.rs"]
pub mod mirror;
pub mod mpi;
pub mod place;
pub mod rehearsal;
pub mod setting;
pub mod slurm;
pub mod soak;
pub mod storm;
pub mod units;
pub mod wheels;

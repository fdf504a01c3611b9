//! The test bed: real MPI jobs in real VMs on one machine that has no HCA.
//!
//! | module | holds |
//! |---|---|
//! | [`apps`] | the MPI test programs, compiled for guests |
//! | [`crossing`] | one operation of the daemon, followed to its end |
//! | [`demo`] | `cargo xtask demo` |
//! | [`job`] | an MPI job in the guests |
//! | [`traffic`] | what the guests' kernels count: the proof of the transport |
//! | [`scenario`] | `symvirt-lab test` |
//! | [`switching`] | `symvirt-lab bench switch` |
//! | [`stall`] | what the stall probe saw from inside the job |
//! | [`command`] | running other programs |
//! | [`lab_dir`] | where costly things are kept |
//! | [`image`] | the guest image and the disk with what is under test |
//! | [`lab`] | hosts as network namespaces, their daemons, their guests; removal of all of it |
//!
//! It proves function and job stall, never the speed of an interconnect: soft-RoCE under
//! emulation is slower than TCP there.
#![forbid(unsafe_code)]

pub mod apps;
pub mod command;
pub mod crossing;
pub mod demo;
pub mod image;
pub mod job;
pub mod lab;
pub mod lab_dir;
pub mod scenario;
pub mod stall;
pub mod switching;
pub mod traffic;

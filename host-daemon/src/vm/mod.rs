//! The VMs of this host: one QEMU each, which outlives the daemon.
//!
//! An *instance* is one QEMU of one VM. During a migration a VM has two, on two hosts or on one,
//! so whatever an instance owns (directory, sockets, taps) is named after the instance.
//!
//! ```text
//!   Vms::start ─► record ─► taps ─► QEMU, stopped ─► record its process ─► monitor
//!                   Origin::Boot      └─► cont                              (the VM runs)
//!                   Origin::Template  └─► load the file, cont               (the VM runs)
//!                   Origin::Incoming  └─► it waits for `migrate-incoming`   (the caller's)
//!
//!   hca::attach ─► record ─► tap ─► plug          hca::detach ─► unplug ─► tap gone ─► record
//!
//!   Instance::stop ─► quit, SIGTERM, SIGKILL ─► Vms::clear ─► taps, directory gone
//! ```
//! Every step is recorded before it is done, so a daemon that restarts finds each QEMU, tap and
//! plugged HCA in [`Vms::list`]. A process is known by its id, its start time and the boot of the
//! machine: a recycled id is never taken for a VM.
//!
//! It knows nothing about gangs or other hosts, and decides nothing about running a VM that
//! arrived by migration.
//!
//! | module | holds |
//! |---|---|
//! | [`credentials`] | TLS of the streams between QEMUs |
//! | [`command_line`] | QEMU's arguments, a pure function |
//! | [`instance`] | what is recorded of an instance, and its files |
//! | [`process`] | a process that is not ours to wait for |
//! | [`store`] | start, list, clear |
//! | [`template`] | save to, and restore from, a mapped-ram file |
//! | [`tap`] | network devices of VMs on this host |
//! | [`hca`] | plug and unplug an HCA |

pub mod command_line;
pub mod credentials;
pub mod hca;
pub mod instance;
pub mod process;
pub mod store;
pub mod tap;
pub mod template;

pub use instance::{Instance, InstanceId, Origin};
pub use store::{Listing, VmError, Vms};

//! What ranks, agents and daemons say to each other, and the rules of a switch.
//!
//! ```text
//!   rank ──unix socket──► agent ──virtio-serial──► symvirtd (coordinator)
//!        FromRank/ToRank        FromAgent/ToAgent
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`ids`] | identities: process, worker, epoch |
//! | [`transport`] | the transports a gang is asked to use |
//! | [`rank`] | messages between one rank and the coordinator |
//! | [`agent`] | messages between a guest's agent and its host, device report |
//! | [`frame`] | bytes on the wire: length-prefixed, versioned, bounded, checksummed |
//! | [`link`] | a lossy byte stream made reliable: sequence numbers, acknowledgement, resume |
//! | [`matches`] | which synchronous sends were matched, for who may have to tell it again |
//! | [`memory`] | what an agent remembers for a coordinator that has lost its memory |
//! | [`packed`] | worker addresses and remote keys as ranks give them to each other |
//! | [`query`] | questions to an agent over its socket |
//! | [`share`] | of a message to all ranks of a guest, what concerns each |
//! | [`trailer`] | what a rank appends to the header of an active message |
//! | [`gang`] | the coordinator's state machine, pure: events in, messages out |
//!
//! Nothing here does I/O, reads a clock or allocates without a bound on the input.
#![forbid(unsafe_code)]

pub mod agent;
pub mod frame;
pub mod gang;
pub mod ids;
pub mod link;
pub mod matches;
pub mod memory;
pub mod packed;
pub mod query;
pub mod rank;
pub mod share;
pub mod trailer;
pub mod transport;

/// Version of every message in this crate. Peers of another version are refused by name.
pub const PROTOCOL_VERSION: u16 = 5;

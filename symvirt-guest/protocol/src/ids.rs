//! Identities. A process is named by 64 random bits that it draws when its first UCX context is
//! made; a UCP object by its process and the order of its creation. Both outlive every switch.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A rank process (or any other UCX user) of a gang; random, never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProcId(pub u64);

/// A UCP object of a gang that peers reach by an exchanged [`Blob`](crate::rank::Blob): a worker,
/// or registered memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectId {
    /// The process that created it.
    pub process: ProcId,
    /// Position in that process's order of creation, from 0; workers and memory share one order.
    pub index: u32,
}

/// A worker.
pub type WorkerId = ObjectId;

/// Registered memory.
pub type MemoryId = ObjectId;

/// A period between two switches. Epoch 0 is the transport a job started on; a switch that
/// commits makes its own number the current epoch, one that is abandoned leaves a gap.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for ProcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process, self.index)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

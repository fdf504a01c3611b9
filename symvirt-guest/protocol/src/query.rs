//! Questions to an agent over its socket, from `symvirt-guest status` and other tools of the guest.
//!
//! A connection that asks begins with [`GREETING`] instead of a frame; then one framed [`Query`],
//! answered by one framed [`Answer`] and the end of the connection. Ranks begin with a frame, so
//! the two cannot be taken for each other.

use serde::{Deserialize, Serialize};

use crate::agent::DeviceReport;
use crate::ids::{Epoch, ObjectId, ProcId};
use crate::transport::{Interconnect, Transports};

/// First bytes of a connection that asks.
pub const GREETING: [u8; 4] = *b"SYMQ";

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// Everything the agent knows.
    Status,
    /// Which processes of this guest have joined.
    Processes,
    /// How an object is reached in an epoch: asked by a rank that runs in it and was not told,
    /// because it had no use for the object when the switch was prepared.
    Reach {
        /// What.
        object: ObjectId,
        /// The epoch that the rank runs in.
        epoch: Epoch,
    },
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Box<AgentStatus>),
    /// To [`Query::Processes`].
    Processes(Vec<ProcId>),
    /// To [`Query::Reach`].
    Reach(Reach),
}

/// How an object is reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reach {
    /// By these bytes of the real UCX.
    By(Vec<u8>),
    /// Not any more.
    Gone,
    /// The coordinator cannot tell.
    Unknown,
    /// The coordinator is being asked, or will be when it is there: ask again in a moment.
    Unheard,
}

/// What an agent knows of its guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Host name of the guest.
    pub guest: String,
    /// Version of the agent's package.
    pub agent_version: String,
    /// Whether a coordinator is connected.
    pub coordinator: bool,
    /// Epoch of the gang, as far as it is known here.
    pub epoch: Epoch,
    /// Its interconnect.
    pub interconnect: Interconnect,
    /// What that means in this guest.
    pub transports: Transports,
    /// The switch under way, if any.
    pub switch: Option<Epoch>,
    /// Processes that joined.
    pub ranks: Vec<RankStatus>,
    /// Interconnect devices of the guest.
    pub devices: DeviceReport,
}

/// One process that joined.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RankStatus {
    /// Identity it drew.
    pub process: ProcId,
    /// Process id in the guest.
    pub pid: u32,
    /// Program name.
    pub program: String,
    /// Rank in MPI_COMM_WORLD, if known.
    pub mpi_rank: Option<u32>,
    /// Version of UCX in the process.
    pub ucx_version: String,
    /// Whether it was welcomed; otherwise it waits for the end of a switch.
    pub member: bool,
    /// The epoch it runs in.
    pub epoch: Epoch,
    /// What it said last, by the name of the message.
    pub said: String,
    /// Where it stands, if it owes an answer for long.
    pub stands: Option<String>,
    /// Bytes of messages that its last drain left in the spool.
    pub spool_bytes: u64,
    /// The most that the spool ever held.
    pub spool_peak: u64,
}

//! Messages between a guest's agent and its host, and the guest's device report.
//!
//! The agent multiplexes its ranks: one frame carries the messages of many ranks. It gathers the
//! answers of all its ranks to a broadcast before it sends (one frame a guest and round), but
//! never longer than a few milliseconds after the first.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, ObjectId, ProcId};
use crate::memory::Memory;
use crate::rank::{Blob, FromRank, Join, ToRank};
use crate::transport::Interconnect;

/// From the host to the agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// Messages for ranks of this guest, in order.
    Ranks(Vec<(Recipient, ToRank)>),
    /// Start of a switch: the agent resolves `interconnect` for its devices and sends
    /// [`ToRank::Prepare`] to each of its ranks.
    Prepare {
        /// This switch.
        epoch: Epoch,
        /// What to aim at.
        interconnect: Interconnect,
    },
    /// What newly joining ranks are to start on; sent at connection and after each switch.
    Current {
        /// Epoch of the gang.
        epoch: Epoch,
        /// Its interconnect.
        interconnect: Interconnect,
    },
    /// Answer to [`FromAgent::Ask`].
    Found {
        /// As asked.
        epoch: Epoch,
        /// How these are reached.
        blobs: Vec<Blob>,
        /// These are no more.
        gone: Vec<ObjectId>,
        /// Of these nothing is known.
        unknown: Vec<ObjectId>,
        /// Nor of these, but a guest or a rank that has yet to come may tell.
        later: Vec<ObjectId>,
    },
    /// Send [`FromAgent::Devices`] now, and again whenever it changes.
    ReportDevices,
    /// The guest is about to be copied: let its kernel forget files that it can read again, if the
    /// hypervisor learns which memory is free, and answer with [`FromAgent::CacheDropped`].
    DropCache,
}

/// Who a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Recipient {
    /// Every rank of the guest.
    All,
    /// One rank.
    One(ProcId),
}

/// From the agent to the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// First message on a connection, and after a restart of either side: who is here.
    Hello {
        /// Host name of the guest.
        guest: String,
        /// Version of the agent's package.
        agent_version: String,
        /// Ranks that are members.
        ranks: Vec<Join>,
        /// What earlier coordinators told and heard.
        memory: Box<Memory>,
    },
    /// Messages of ranks, in order.
    Ranks(Vec<(ProcId, FromRank)>),
    /// A rank's connection ended. Without a [`FromRank::Leave`] before it, the process died.
    Gone {
        /// Which.
        process: ProcId,
        /// Its process id.
        pid: u32,
    },
    /// How are these reached in the epoch? Ranks use them that did not when the switch was prepared.
    Ask {
        /// The epoch that the ranks run in.
        epoch: Epoch,
        /// What.
        objects: Vec<ObjectId>,
    },
    /// The guest's devices.
    Devices(DeviceReport),
    /// What the agent could not do, for the operator.
    Problem {
        /// The operation and its object.
        message: String,
    },
    /// Answer to [`ToAgent::DropCache`].
    CacheDropped {
        /// By so many bytes the guest's page cache has shrunk.
        bytes: u64,
    },
}

/// The guest's interconnect devices as the kernel shows them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Verbs devices.
    pub verbs: Vec<VerbsDevice>,
    /// Network devices, without loopback.
    pub netdevs: Vec<NetDevice>,
}

/// One verbs device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerbsDevice {
    /// For example `mlx5_0` or `rxe0`.
    pub name: String,
    /// Ports, from number 1.
    pub ports: Vec<VerbsPort>,
    /// The network device it sits on, if any.
    pub netdev: Option<String>,
    /// Processes that hold it open (a `/dev/infiniband/uverbs*` descriptor).
    pub holders: Vec<Holder>,
}

/// One port of a verbs device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerbsPort {
    /// Port number, from 1.
    pub number: u8,
    /// Whether it is ACTIVE.
    pub active: bool,
    /// The kernel's name of its state, for example `4: ACTIVE`.
    pub state: String,
    /// GIDs that are not zero; they settle for a moment after plugging.
    pub gids: Vec<String>,
    /// Bytes received and sent, where the device counts them.
    pub bytes: Option<(u64, u64)>,
}

/// One network device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetDevice {
    /// Interface name.
    pub name: String,
    /// PCI address (`0000:01:00.0`), if it is a PCI device.
    pub pci: Option<String>,
    /// Whether the carrier is up.
    pub up: bool,
    /// Whether a verbs device sits on it.
    pub hca: bool,
    /// Bytes received and sent.
    pub bytes: (u64, u64),
}

/// A process that holds a verbs device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Process id in the guest.
    pub pid: u32,
    /// Program name.
    pub program: String,
    /// Whether it is a rank that the library controls.
    pub rank: bool,
}

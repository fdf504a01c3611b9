//! What the API shows. Operations are shown as the journal has them; `progress` is what cannot be
//! journalled because it changes all the time.

use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, GangName, HcaName, HostName, VmName};
use crate::operation::{CopyStatus, OperationId, Phase, Plan, Report, Request, Target};
use crate::retry::RetryInfo;

/// Version of the API; daemons of different versions do not work together.
pub const API_VERSION: u32 = 2;

/// A host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its name.
    pub host: HostName,
    /// See [`API_VERSION`].
    pub api_version: u32,
    /// Version of the package.
    pub version: String,
    /// Memory that is left for VMs.
    pub memory_free: ByteSize,
    /// Virtual CPUs that are left for VMs; none if there is no limit.
    #[serde(default)]
    pub vcpus_free: Option<u32>,
    /// HCAs that no VM has.
    pub hcas_free: Vec<HcaName>,
    /// Configured peers.
    pub peers: Vec<HostName>,
    /// Gangs with VMs there.
    #[serde(default)]
    pub gangs: Vec<GangName>,
    /// What operations of other hosts have reserved there.
    #[serde(default)]
    pub reserved: Vec<ReservedInfo>,
}

/// What an operation has reserved on a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReservedInfo {
    /// Which.
    pub operation: OperationId,
    /// The VMs that are to come.
    pub vms: Vec<VmName>,
}

/// What became of a reservation that was given back without its coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Whose it was.
    pub operation: OperationId,
    /// VMs whose QEMUs waited, and were ended.
    pub ended: Vec<VmName>,
    /// VMs that are here, and were not touched.
    pub kept: Vec<VmName>,
}

/// What a VM's QEMU does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// It runs.
    Running,
    /// It stands still.
    Paused,
    /// It waits for a migration stream.
    Incoming,
    /// It has crossed to another host; its QEMU has not been ended yet.
    Migrated,
    /// Its QEMU does not answer.
    Unresponsive,
    /// Its QEMU has ended.
    Dead,
}

impl std::fmt::Display for VmState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Incoming => "incoming",
            Self::Migrated => "migrated",
            Self::Unresponsive => "unresponsive",
            Self::Dead => "dead",
        })
    }
}

/// What is known of the agent in a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "agent", rename_all = "kebab-case")]
pub enum AgentInfo {
    /// Nothing was heard of it.
    Silent,
    /// It answers.
    Present {
        /// Host name of the guest, by its own account.
        guest: String,
        /// Version of the agent, by its own account.
        version: String,
    },
    /// It cannot be understood.
    Incompatible {
        /// Why.
        reason: String,
    },
}

/// A VM.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VmInfo {
    /// Its name.
    pub name: VmName,
    /// Its gang.
    pub gang: GangName,
    /// What it does.
    pub state: VmState,
    /// Process id of its QEMU.
    pub pid: Option<u32>,
    /// Its memory.
    pub memory: ByteSize,
    /// The HCA that is plugged.
    pub hca: Option<HcaName>,
    /// The agent in it.
    pub agent: AgentInfo,
    /// Directory of its sockets and its console.
    pub directory: std::path::PathBuf,
}

/// A gang.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GangInfo {
    /// Its name.
    pub name: GangName,
    /// Its VMs on this host.
    pub vms: Vec<VmName>,
    /// Its members, as an operator would look for them.
    pub ranks: Vec<String>,
    /// Switches of transports so far.
    pub epoch: u64,
    /// What it communicates over.
    pub interconnect: Target,
    /// The operation under way.
    pub busy: Option<OperationId>,
    /// What an ended operation could not do, and is still wanted.
    #[serde(default)]
    pub retry: Option<RetryInfo>,
}

/// Where one VM of an operation stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VmProgress {
    /// Which.
    pub vm: VmName,
    /// How far its copy is.
    pub copy: CopyStatus,
}

/// What changes all the time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The VMs that are copied.
    pub vms: Vec<VmProgress>,
    /// What the gang communicates over now.
    pub interconnect: Option<Target>,
    /// What the phase is waiting for.
    pub doing: String,
}

/// An operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OperationInfo {
    /// Its name.
    pub id: OperationId,
    /// The host that coordinates it.
    pub coordinator: HostName,
    /// What was asked for.
    pub request: Request,
    /// What was decided.
    pub plan: Plan,
    /// Where it is.
    pub phase: Phase,
    /// Since when, in milliseconds since 1970.
    pub phase_since_ms: u64,
    /// Whether a cancel was asked for.
    pub cancelled: bool,
    /// Why it did not, or will not, end as asked.
    pub reason: Option<String>,
    /// What changes all the time.
    pub progress: Progress,
    /// What was measured, once it has ended.
    pub report: Option<Report>,
}

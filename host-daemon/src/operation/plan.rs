//! What an operation will do, decided before anything is touched, and serialisable: the first
//! record of its journal.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request_id::RequestId;
use crate::config::{GangName, HcaName, HostName, VmName};

/// Name of an operation: its coordinator and a number, so that no two hosts give the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperationId(String);

/// Not the name of an operation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an operation: expected HOST-NUMBER, as `symvirt status` lists them")]
pub struct NotAnOperation(String);

impl OperationId {
    /// The `n`th operation that `host` coordinates.
    pub fn nth(host: &HostName, n: u64) -> Self {
        Self(format!("{host}-{n:05}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host that coordinates it.
    pub fn coordinator(&self) -> Option<HostName> {
        parts(&self.0).map(|(host, _)| host)
    }

    /// Its place in the order of its host's operations.
    pub fn number(&self) -> u64 {
        parts(&self.0).map_or(0, |(_, number)| number)
    }
}

fn parts(text: &str) -> Option<(HostName, u64)> {
    let (host, digits) = text.rsplit_once('-')?;
    let plain = digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((host.parse().ok()?, digits.parse().ok().filter(|_| plain)?))
}

impl FromStr for OperationId {
    type Err = NotAnOperation;

    fn from_str(text: &str) -> Result<Self, NotAnOperation> {
        match parts(text) {
            Some((host, number)) => Ok(Self::nth(&host, number)),
            None => Err(NotAnOperation(text.to_owned())),
        }
    }
}

impl TryFrom<String> for OperationId {
    type Error = NotAnOperation;

    fn try_from(text: String) -> Result<Self, NotAnOperation> {
        text.parse()
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> String {
        id.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the job does while its VMs are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It runs, on transports that need no HCA.
    #[default]
    Live,
    /// It stands still.
    Hold,
}

/// What a gang communicates over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Whatever UCX finds, HCAs included.
    Native,
    /// Everything but HCAs.
    Fallback,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Fallback => "fallback",
        })
    }
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Move all VMs of a gang to a host.
    Migrate {
        /// The gang.
        gang: GangName,
        /// The host.
        to: HostName,
        /// What the job does meanwhile.
        #[serde(default)]
        mode: Mode,
        /// Bounds.
        #[serde(default)]
        limits: Limits,
    },
    /// Change the interconnect of a gang where it is.
    Switch {
        /// The gang.
        gang: GangName,
        /// The interconnect.
        to: Target,
        /// Live: the new transport is built while the job runs on the old one. Hold: the job
        /// stands still while it lets go of the one and builds the other.
        #[serde(default)]
        mode: Mode,
        /// Bounds.
        #[serde(default)]
        limits: Limits,
    },
}

impl Request {
    /// The gang it is about.
    pub fn gang(&self) -> &GangName {
        match self {
            Self::Migrate { gang, .. } | Self::Switch { gang, .. } => gang,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Migrate {
                gang,
                to,
                mode: Mode::Live,
                ..
            } => {
                write!(f, "migrate {gang} to {to}, live")
            }
            Self::Migrate {
                gang,
                to,
                mode: Mode::Hold,
                ..
            } => {
                write!(f, "migrate {gang} to {to}, hold")
            }
            Self::Switch {
                gang,
                to,
                mode: Mode::Live,
                ..
            } => write!(f, "switch {gang} to {to}"),
            Self::Switch {
                gang,
                to,
                mode: Mode::Hold,
                ..
            } => write!(f, "switch {gang} to {to}, hold"),
        }
    }
}

/// What is done with a gang that dirties its memory faster than it is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IfNotConverging {
    /// The operation is rolled back, and says why.
    #[default]
    Refuse,
    /// The job is held for the rest of the copy, as in [`Mode::Hold`].
    Hold,
    /// The VMs stand still for as long as the rest takes.
    Force,
    /// The VMs cross, and the rest follows while they run. Until it has, a host that fails takes
    /// them with it.
    Postcopy,
}

/// Whether what is copied is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// If the bandwidth is known to be so low that it pays.
    #[default]
    Auto,
    /// Never.
    Off,
    /// By zstd.
    Zstd,
}

/// Whether the guests' page caches are dropped before they are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropCache {
    /// If the bandwidth is known to be so low that reading files again is cheaper.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always.
    On,
}

/// Bounds of an operation. No wait in it is without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long a VM may stand still at its switchover, in milliseconds.
    pub downtime_ms: u64,
    /// For the gang to converge, in seconds.
    pub converge_s: u64,
    /// For the link of a plugged HCA to become active, in seconds.
    pub link_s: u64,
    /// For one switch of transports, in seconds.
    pub switch_s: u64,
    /// For one unplug, in seconds.
    pub unplug_s: u64,
    /// Migration bandwidth of one VM in bytes per second; 0 for no limit.
    pub bandwidth: u64,
    /// The same of all VMs of the gang together, shared so that they converge together; 0 for no
    /// limit.
    pub gang_bandwidth: u64,
    /// What is done if the gang does not converge.
    pub if_not_converging: IfNotConverging,
    /// How far a job that dirties memory too fast may be slowed down, in percent, by its library, or
    /// a VM without ranks by QEMU; 0: not at all.
    pub throttle: u8,
    /// Whether what is copied is compressed.
    pub compress: Compress,
    /// Whether the guests' page caches are dropped before they are copied.
    pub drop_cache: DropCache,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            downtime_ms: 300,
            converge_s: 600,
            link_s: 120,
            switch_s: 120,
            unplug_s: 60,
            bandwidth: 0,
            gang_bandwidth: 0,
            if_not_converging: IfNotConverging::Refuse,
            throttle: 0,
            compress: Compress::Auto,
            drop_cache: DropCache::Auto,
        }
    }
}

impl Limits {
    /// How long a VM may stand still at its switchover.
    pub fn downtime(&self) -> Duration {
        Duration::from_millis(self.downtime_ms)
    }

    /// For the gang to converge.
    pub fn converge(&self) -> Duration {
        Duration::from_secs(self.converge_s)
    }

    /// Whether VMs may cross before their memory.
    pub fn may_postcopy(&self) -> bool {
        self.if_not_converging == IfNotConverging::Postcopy
    }

    /// What contradicts itself in them, if anything does.
    pub fn contradiction(&self) -> Option<&'static str> {
        (self.may_postcopy() && self.compress == Compress::Zstd).then_some(
            "QEMU cannot compress a copy whose rest may follow: \
             `--if-not-converging postcopy` goes with `--compress off`",
        )
    }

    /// For the link of a plugged HCA to become active.
    pub fn link(&self) -> Duration {
        Duration::from_secs(self.link_s)
    }

    /// For one switch of transports.
    pub fn switch(&self) -> Duration {
        Duration::from_secs(self.switch_s)
    }

    /// For one unplug.
    pub fn unplug(&self) -> Duration {
        Duration::from_secs(self.unplug_s)
    }
}

/// A validated operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub id: OperationId,
    /// What was asked for.
    pub request: Request,
    /// The id that it was asked for by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The VMs of the gang.
    pub vms: Vec<VmPlan>,
    /// Whether the gang has members whose transport is to be switched.
    pub ranks: bool,
    /// What the gang communicates over at the start, and after a rollback.
    pub interconnect: Target,
    /// Milliseconds since 1970 at which it was planned.
    pub planned_ms: u64,
}

/// What an operation does with one VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VmPlan {
    /// The VM.
    pub vm: VmName,
    /// Where it runs.
    pub source: HostName,
    /// The HCA that is plugged there.
    pub source_hca: Option<HcaName>,
    /// The HCA that it gets at the destination.
    pub destination_hca: Option<HcaName>,
}

impl Plan {
    /// Bounds of the operation.
    pub fn limits(&self) -> &Limits {
        match &self.request {
            Request::Migrate { limits, .. } | Request::Switch { limits, .. } => limits,
        }
    }

    /// Whether the job stands still during the transfer, or the switch.
    pub fn holds(&self) -> bool {
        let (Request::Migrate { mode, .. } | Request::Switch { mode, .. }) = &self.request;
        self.ranks && *mode == Mode::Hold
    }

    /// Whether the VMs stay where they are.
    pub fn is_in_place(&self) -> bool {
        matches!(self.request, Request::Switch { .. })
    }

    /// Whether the running job is to be moved off its HCAs first.
    pub fn leaves_hca(&self) -> bool {
        self.ranks && self.unplugs() && self.interconnect == Target::Native
    }

    /// Whether the gang is to be moved onto the HCAs that it gets: its ranks, or, if it has none now
    /// and its last job ended on fallback, those of its next job.
    pub fn takes_hca(&self) -> bool {
        self.plugs() && (self.ranks || self.interconnect == Target::Fallback)
    }

    /// Whether any VM has an HCA to be unplugged.
    pub fn unplugs(&self) -> bool {
        self.vms.iter().any(|vm| vm.source_hca.is_some())
    }

    /// Whether any VM gets an HCA at the destination.
    pub fn plugs(&self) -> bool {
        self.vms.iter().any(|vm| vm.destination_hca.is_some())
    }
}

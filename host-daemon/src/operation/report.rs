//! What was measured in an operation. Every number is one that somebody counted: QEMU, the ranks,
//! the guests' kernels, or this daemon's monotonic clock.

use serde::{Deserialize, Serialize};
use symvirt_protocol::rank::Stall;

use super::convergence::Convergence;
use super::phase::Phase;
use super::plan::Target;
use crate::config::{HostName, VmName};

/// What was measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// From the first intent to the end, in milliseconds.
    pub total_ms: u64,
    /// The phases in the order they ran.
    pub phases: Vec<PhaseTime>,
    /// The VMs.
    pub vms: Vec<VmReport>,
    /// How the copies converged, if there were any.
    pub convergence: Option<Convergence>,
    /// The switches of transports.
    pub switches: Vec<SwitchReport>,
    /// What the gang communicates over at the end, if it has ranks.
    pub interconnect: Option<Target>,
    /// What the operator may want to know though it changes nothing.
    pub notes: Vec<String>,
}

/// Duration of a phase.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
}

/// What was measured of one VM.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VmReport {
    /// Which.
    pub vm: VmName,
    /// Where it runs at the end, as far as is known.
    pub host: Option<HostName>,
    /// Bytes that QEMU transferred.
    pub bytes: u64,
    /// Passes over the memory.
    pub passes: u64,
    /// By how much its page cache was shrunk before, in bytes; nothing if it was not, or did not
    /// say.
    #[serde(default)]
    pub cache_dropped: Option<u64>,
    /// How long it stood still at its switchover, as QEMU counts it, in milliseconds.
    pub downtime_ms: Option<u64>,
    /// From the source's stop event to the destination's resume, by this daemon's clock, in
    /// milliseconds.
    pub stopped_ms: Option<f64>,
    /// How long it stood before the switchover, ready, until the last VM was.
    pub waited_ms: f64,
    /// The guest's counters before.
    pub before: Option<Traffic>,
    /// The guest's counters after.
    pub after: Option<Traffic>,
}

impl VmReport {
    /// Of a VM on `host`, with nothing measured yet.
    pub fn new(vm: VmName, host: Option<HostName>) -> Self {
        Self {
            vm,
            host,
            bytes: 0,
            passes: 0,
            cache_dropped: None,
            downtime_ms: None,
            stopped_ms: None,
            waited_ms: 0.0,
            before: None,
            after: None,
        }
    }
}

/// Bytes that a guest's interfaces counted since they appeared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Received and sent over verbs devices, where they count.
    pub verbs: u64,
    /// Received and sent over network devices without a verbs device.
    pub netdevs: u64,
    /// Verbs devices there are.
    pub verbs_devices: usize,
}

/// One switch of transports.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SwitchReport {
    /// In which phase.
    pub phase: Phase,
    /// What the gang went to; nothing while it is held.
    pub to: Option<Target>,
    /// From the request to the answer, in milliseconds.
    pub took_ms: f64,
    /// How long each rank stood still, and where the time went.
    pub stalls: Vec<RankStall>,
}

/// How long a rank stood still in a switch, as it measured it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RankStall {
    /// Which, as an operator would look for it.
    pub rank: String,
    /// Where the time went.
    pub stall: Stall,
}

impl SwitchReport {
    /// Longest and median stall of a rank, in microseconds.
    pub fn max_and_median(&self) -> Option<(u64, u64)> {
        let mut sorted: Vec<_> = self.stalls.iter().map(|rank| rank.stall.total_us).collect();
        sorted.sort_unstable();
        Some((*sorted.last()?, sorted[sorted.len() / 2]))
    }
}

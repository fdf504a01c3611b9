//! Whether a gang converges, when it will have been copied, and what is done if it does not. Pure.
//!
//! ```text
//!   left
//!    │█▄                    each pass sends what was dirtied during the one before: what is left
//!    │██▄▄                  shrinks by dirty rate / bandwidth, down to what fits the downtime
//!    │█████▄▄▄▁▁ fits
//!    └───────────► passes   it does not shrink any more: slow the job down, if that is allowed;
//!                           then hold the job, force the VMs, let them cross before the rest
//!                           of their memory (postcopy), or go back, as was asked for
//! ```
//!
//! Postcopy is never chosen unasked. A VM whose memory follows it runs at its destination before its
//! source has completed: each host holds a part of it and nobody the whole, so a host that fails then
//! takes it along. What else fails, a daemon or the link, it only has to wait for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effects::{CopyStatus, Streams};
use super::plan::{Compress, DropCache, IfNotConverging, Limits};
use crate::config::VmName;

/// Bandwidths below which compressing pays, in bytes per second: zstd at its fastest level takes a
/// small part of one processor for it.
const PAYS: u64 = 48 << 20;
/// Bytes per second below which it pays to forget files and to read them again: 1 Gbit/s. Disks and
/// parallel file systems are faster.
const READ_AGAIN: u64 = 125_000_000;
/// Passes after which QEMU has measured how fast memory is dirtied.
const MEASURED: u64 = 2;
/// Passes that may bring nothing.
const STAGNANT_PASSES: u64 = 3;
/// For how long at least: short passes tell little.
const STAGNANT: Duration = Duration::from_secs(10);
/// Passes further than this are not predicted.
const FORESEEN_PASSES: u32 = 1000;

/// How the copies of an operation go over the link.
pub fn streams(limits: &Limits) -> Streams {
    match limits.compress {
        _ if limits.may_postcopy() => Streams::Postcopy,
        Compress::Zstd => Streams::Zstd,
        Compress::Auto if is_slower_than(PAYS, limits) => Streams::Zstd,
        Compress::Auto | Compress::Off => Streams::Plain,
    }
}

/// Whether the guests' page caches are dropped before they are copied.
pub fn drops_cache(limits: &Limits) -> bool {
    match limits.drop_cache {
        DropCache::On => true,
        DropCache::Auto => is_slower_than(READ_AGAIN, limits),
        DropCache::Off => false,
    }
}

/// Whether the copies are known to have less bandwidth than this, in bytes per second.
fn is_slower_than(enough: u64, limits: &Limits) -> bool {
    [limits.bandwidth, limits.gang_bandwidth]
        .iter()
        .any(|limit| (1..enough).contains(limit))
}

/// What is done with a gang that does not converge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Course {
    /// Roll back.
    Refuse,
    /// Hold the job, and copy on.
    Hold,
    /// Stop the VMs, and let them stand for as long as the rest takes.
    Force,
    /// Let the VMs cross, and the rest follow.
    Postcopy,
}

/// What is done, and why it is that, if it is not what was asked for.
pub fn course(asked: IfNotConverging, ranks: bool, held: bool) -> (Course, &'static str) {
    match asked {
        IfNotConverging::Refuse => (Course::Refuse, ""),
        IfNotConverging::Force => (Course::Force, ""),
        IfNotConverging::Postcopy => (Course::Postcopy, ""),
        IfNotConverging::Hold if held => (
            Course::Refuse,
            "; the job is held: something else dirties the memory",
        ),
        IfNotConverging::Hold if !ranks => {
            (Course::Refuse, "; the gang has no ranks that could be held")
        }
        IfNotConverging::Hold => (Course::Hold, ""),
    }
}

/// When a copy will fit its downtime if its VM goes on like this; `None`: never.
///
/// `bandwidth` in bytes sent per second.
pub fn fits_in(copy: &CopyStatus, bandwidth: u64, downtime_ms: u64) -> Option<Duration> {
    let pass_ms = copy.sending_ms(copy.remaining, bandwidth) as f64;
    let shrinks = copy.sending_ms(copy.dirty_rate, bandwidth) as f64 / 1000.0;
    let (mut left_ms, mut took_ms) = (pass_ms, 0.0);
    for _ in 0..FORESEEN_PASSES {
        if left_ms <= downtime_ms as f64 {
            return Some(Duration::from_secs_f64(took_ms / 1000.0));
        }
        if shrinks >= 1.0 {
            return None;
        }
        took_ms += left_ms;
        left_ms *= shrinks;
    }
    None
}

/// What was foreseen, and what came.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Convergence {
    /// After how long since its begin the copy was foreseen to fit, in milliseconds; nothing if it
    /// was foreseen never to, or was over before anything could be.
    pub predicted_ms: Option<u64>,
    /// When that was foreseen: as soon as the dirty rate of every VM had been measured.
    pub predicted_at_ms: Option<u64>,
    /// When the copy did fit, and the VMs were stopped.
    pub converged_ms: Option<u64>,
    /// The longest downtime that was foreseen as the VMs were stopped, in milliseconds.
    pub predicted_downtime_ms: Option<u64>,
    /// Why the gang was taken for one that does not converge, and what was done.
    pub diverged: Option<String>,
    /// How the copies went over the link.
    pub streams: Streams,
    /// By how many percent the job was slowed down by its library, at most.
    pub slowed: u8,
}

/// Which copies still get smaller.
#[derive(Debug, Default)]
pub struct Trend {
    vms: BTreeMap<VmName, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The least that a pass had to send.
    least_ms: u64,
    /// The pass.
    since_pass: u64,
    throttle: u8,
    /// How long the copy went at full pace since then, and how long not.
    full_pace: Duration,
    slowed: Duration,
    looked: Duration,
}

impl Trend {
    /// Takes in a look at a VM, `now` after the begin: whether its copy has long stopped getting
    /// smaller. To be called for VMs that go at full pace, and do not fit.
    pub fn stagnates(&mut self, now: Duration, vm: &VmName, copy: &CopyStatus) -> bool {
        let (Some(expected_ms), true) = (copy.expected_downtime_ms, copy.passes >= MEASURED) else {
            return false;
        };
        let fresh = Seen {
            least_ms: expected_ms,
            since_pass: copy.passes,
            throttle: copy.throttle,
            full_pace: Duration::ZERO,
            slowed: Duration::ZERO,
            looked: now,
        };
        let Some(seen) = self.vms.get_mut(vm) else {
            self.vms.insert(vm.clone(), fresh);
            return false;
        };
        let shrank = expected_ms < seen.least_ms - seen.least_ms / 10;
        if shrank || copy.throttle != seen.throttle {
            *seen = fresh;
            return false;
        }
        seen.full_pace += now.saturating_sub(seen.looked);
        seen.looked = now;
        copy.passes.saturating_sub(seen.since_pass) >= STAGNANT_PASSES && seen.full_pace >= STAGNANT
    }

    /// The copy is slowed down by us, to go with the others. Two that are alike are, in turns, at
    /// the end of each pass, which is not to hide that they stagnate; of one that is slowed down
    /// more often than not, nothing is known.
    pub fn slowed(&mut self, now: Duration, vm: &VmName) {
        let Some(seen) = self.vms.get_mut(vm) else {
            return;
        };
        seen.slowed += now.saturating_sub(seen.looked);
        seen.looked = now;
        if seen.slowed > seen.full_pace {
            self.vms.remove(vm);
        }
    }

    /// The VM fits: its copy has got smaller.
    pub fn forget(&mut self, vm: &VmName) {
        self.vms.remove(vm);
    }
}

#[cfg(test)]
#[path = "convergence_tests.rs"]
mod tests;

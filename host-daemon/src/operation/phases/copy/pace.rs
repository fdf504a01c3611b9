//! How fast each VM's copy may go so that no VM is ready long before the others. Pure.
//!
//! A copy that has sent everything looks for dirty pages, sends them, and looks again, as often as
//! it can, tens of thousands of times a second, and the VM's vCPUs wait each time. So a VM that fits
//! while another does not is slowed down to less than it dirties: then it has always something
//! left, and looks once in each tenth of a second, over which QEMU keeps to a bandwidth.
//!
//! Where the gang's copies have a bandwidth together, each has a share of it, see [`super::share`].

use std::collections::BTreeMap;

use super::share::{CRAWL, Need, shares};
use crate::config::VmName;
use crate::operation::effects::CopyStatus;
use crate::operation::plan::Limits;

/// Below this time to the end of its pass, the slowest is no reason to slow anybody down.
const NEAR_MS: u64 = 300;
/// Passes after which QEMU's expectation means something.
const PASSES: u64 = 2;

/// The paces of a gang's copies.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of each copy, as configured; 0 for no limit.
    each: u64,
    /// Of all together, as configured; 0 for no limit.
    all: u64,
    /// Of that, if there is one.
    shares: BTreeMap<VmName, u64>,
    /// Fastest that was seen of any copy, in bytes per second.
    fastest: u64,
    /// Copies that are slowed down, and to what.
    slowed: BTreeMap<VmName, u64>,
}

impl Pace {
    /// Nobody is slowed down, and all have the same share.
    pub fn new<'a>(limits: &Limits, vms: impl IntoIterator<Item = &'a VmName>) -> Self {
        let vms: Vec<_> = vms.into_iter().cloned().collect();
        let nothing_known = vec![Need::default(); vms.len()];
        let shares = shares(limits.gang_bandwidth, &nothing_known);
        let shared = vms.into_iter().zip(shares);
        Self {
            each: limits.bandwidth,
            all: limits.gang_bandwidth,
            shares: shared.filter(|_| limits.gang_bandwidth > 0).collect(),
            fastest: 0,
            slowed: BTreeMap::new(),
        }
    }

    /// What a copy may use that is not slowed down, in bytes per second; 0 for no limit.
    pub fn allowed(&self, vm: &VmName) -> u64 {
        let limits = [self.each, self.shares.get(vm).copied().unwrap_or(0)];
        let limits = limits.into_iter().filter(|limit| *limit > 0);
        limits.min().unwrap_or(0)
    }

    /// What a copy could do if it were not slowed down, in bytes per second.
    pub fn nominal(&self, vm: &VmName, copy: &CopyStatus) -> u64 {
        let seen = self.fastest.max(copy.bandwidth).max(1);
        match self.allowed(vm) {
            0 => seen,
            allowed => seen.min(allowed),
        }
    }

    /// Shares the bandwidth anew, if that makes a difference.
    fn share(&mut self, copies: &[(VmName, CopyStatus)]) -> BTreeMap<VmName, u64> {
        let need = |copy: &CopyStatus| Need {
            left: copy.compressed(left(copy)),
            dirty_rate: copy.compressed(copy.dirty_rate),
        };
        let needs: Vec<_> = copies.iter().map(|(_, copy)| need(copy)).collect();
        let names = copies.iter().map(|(vm, _)| vm.clone());
        let shares: BTreeMap<_, _> = names.zip(shares(self.all, &needs)).collect();
        let differs = |(vm, share): (&VmName, &u64)| {
            let now = self.shares.get(vm).copied().unwrap_or(0);
            share.abs_diff(now) > now / 4
        };
        if !shares.iter().any(differs) {
            return BTreeMap::new();
        }
        self.shares = shares;
        let vms = copies.iter().map(|(vm, _)| vm);
        let vms = vms.filter(|vm| !self.slows(vm));
        vms.map(|vm| (vm.clone(), self.allowed(vm))).collect()
    }

    /// The bandwidths to set, after a look at all copies.
    pub fn look(
        &mut self,
        copies: &[(VmName, CopyStatus)],
        downtime_ms: u64,
    ) -> BTreeMap<VmName, u64> {
        for (_, copy) in copies {
            self.fastest = self.fastest.max(copy.bandwidth);
        }
        let mut changes = match self.all {
            0 => BTreeMap::new(),
            _ => self.share(copies),
        };
        let slowest = self.slowest_ms(copies);
        for (vm, copy) in copies {
            let left = self.left_ms(vm, copy);
            let ahead = copy.passes > 0 && slowest > NEAR_MS && left.saturating_mul(2) < slowest;
            if ahead || fits(vm, copy, self, downtime_ms) {
                let sent = |memory: u64| copy.compressed(memory);
                let with_the_slowest = sent(copy.remaining).saturating_mul(1000) / slowest.max(1);
                let pace = with_the_slowest.max(sent(copy.dirty_rate) / 2).max(CRAWL);
                let now = self.slowed.get(vm).copied();
                // Small corrections are not worth a command.
                if now.is_none_or(|now| pace > now.saturating_mul(2) || pace < now / 2) {
                    self.slowed.insert(vm.clone(), pace);
                    changes.insert(vm.clone(), pace);
                }
            } else if self.slowed.remove(vm).is_some() {
                changes.insert(vm.clone(), self.allowed(vm));
            }
        }
        changes
    }

    /// Whether the slowest is near the end of its pass.
    pub fn is_near(&self, copies: &[(VmName, CopyStatus)]) -> bool {
        self.slowest_ms(copies) <= NEAR_MS
    }

    /// Until the end of the slowest's pass, in milliseconds.
    fn slowest_ms(&self, copies: &[(VmName, CopyStatus)]) -> u64 {
        let left = copies.iter().map(|(vm, copy)| self.left_ms(vm, copy));
        left.max().unwrap_or(0)
    }

    fn left_ms(&self, vm: &VmName, copy: &CopyStatus) -> u64 {
        copy.sending_ms(left(copy), self.nominal(vm, copy))
    }

    /// Nobody is slowed down any more: the bandwidths to set.
    pub fn all_off(&mut self) -> BTreeMap<VmName, u64> {
        let slowed = std::mem::take(&mut self.slowed).into_keys();
        slowed.map(|vm| (vm.clone(), self.allowed(&vm))).collect()
    }

    /// Whether the VM is slowed down.
    pub fn slows(&self, vm: &VmName) -> bool {
        self.slowed.contains_key(vm)
    }

    fn is_slowed(&self, copy: &CopyStatus) -> bool {
        self.slowed
            .values()
            .any(|pace| copy.bandwidth <= pace.saturating_mul(2))
    }
}

/// Memory that the pass has still to look at, in bytes.
fn left(copy: &CopyStatus) -> u64 {
    match copy.passes {
        0 => copy.total,
        _ => copy.remaining,
    }
}

/// Whether the rest of a VM could be sent within the downtime.
pub(super) fn fits(vm: &VmName, copy: &CopyStatus, pace: &Pace, downtime_ms: u64) -> bool {
    // QEMU expects with the bandwidth it is allowed.
    let rest_ms = copy.sending_ms(copy.remaining, pace.nominal(vm, copy));
    let slowed = pace.is_slowed(copy) && copy.passes >= PASSES && rest_ms <= downtime_ms;
    let expected = copy
        .expected_downtime_ms
        .is_some_and(|expected| copy.compressed(expected) <= downtime_ms);
    slowed || copy.passes >= PASSES && expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(remaining: u64, passes: u64, bandwidth: u64) -> CopyStatus {
        CopyStatus {
            state: "active".into(),
            total: 1 << 30,
            remaining,
            passes,
            bandwidth,
            expected_downtime_ms: Some(remaining * 1000 / bandwidth),
            ..CopyStatus::default()
        }
    }

    fn name(vm: &str) -> VmName {
        vm.parse().unwrap()
    }

    fn free() -> Pace {
        Pace::new(&Limits::default(), &[])
    }

    fn gang(copies: [CopyStatus; 2]) -> Vec<(VmName, CopyStatus)> {
        let [first, second] = copies;
        vec![(name("vm1"), first), (name("vm2"), second)]
    }

    impl Pace {
        fn look_at(&mut self, copies: [CopyStatus; 2]) -> BTreeMap<VmName, u64> {
            self.look(&gang(copies), 300)
        }
    }

    #[test]
    fn a_vm_far_ahead_is_slowed_to_end_its_pass_with_the_slowest() {
        let mut pace = free();
        let changes = pace.look_at([copy(10 << 20, 1, 100 << 20), copy(900 << 20, 1, 100 << 20)]);
        let slowed = changes[&name("vm1")];
        assert!((1 << 20..2 << 20).contains(&slowed), "{slowed}");
        assert!(!changes.contains_key(&name("vm2")));
    }

    #[test]
    fn nobody_is_slowed_when_all_are_near_the_end() {
        let mut pace = free();
        let changes = pace.look_at([copy(35 << 20, 2, 100 << 20), copy(40 << 20, 2, 100 << 20)]);
        assert!(changes.is_empty());
    }

    #[test]
    fn a_vm_that_fits_always_has_something_left_until_the_others_fit() {
        let mut pace = free();
        let mut ready = copy(0, 2, 100 << 20);
        ready.dirty_rate = 3 << 20;
        let changes = pace.look_at([ready, copy(40 << 20, 2, 100 << 20)]);
        assert_eq!(changes, [(name("vm1"), 3 << 19)].into());
        let off = pace.all_off();
        assert_eq!(off, [(name("vm1"), 0)].into());
    }

    #[test]
    fn a_slowed_vm_goes_at_full_speed_again_when_the_others_have_caught_up() {
        let mut pace = free();
        pace.look_at([copy(10 << 20, 1, 100 << 20), copy(900 << 20, 1, 100 << 20)]);
        let changes = pace.look_at([copy(30 << 20, 1, 2 << 20), copy(40 << 20, 2, 100 << 20)]);
        assert_eq!(changes[&name("vm1")], 0);
        assert!(pace.all_off().is_empty());
    }

    #[test]
    fn a_slowed_vm_fits_by_what_it_could_do() {
        let mut pace = free();
        pace.look_at([copy(10 << 20, 1, 100 << 20), copy(900 << 20, 1, 100 << 20)]);
        let mut slowed = copy(5 << 20, 2, 1 << 20);
        slowed.expected_downtime_ms = Some(5000);
        assert!(fits(&name("vm1"), &slowed, &pace, 300));
        slowed.remaining = 500 << 20;
        assert!(!fits(&name("vm1"), &slowed, &pace, 300));
    }

    #[test]
    fn who_has_more_left_gets_more_of_what_all_have_together() {
        let limits = Limits {
            gang_bandwidth: 40 << 20,
            ..Limits::default()
        };
        let names = ["vm1", "vm2"].map(name);
        let mut pace = Pace::new(&limits, &names);
        assert_eq!(names.each_ref().map(|vm| pace.allowed(vm)), [20 << 20; 2]);
        let uneven = || [copy(300 << 20, 1, 20 << 20), copy(100 << 20, 1, 20 << 20)];
        let changes = pace.look_at(uneven());
        let [first, second] = names;
        assert_eq!(changes, [(first, 30 << 20), (second, 10 << 20)].into());
        assert!(pace.look_at(uneven()).is_empty(), "no difference");
    }
}

//! How fast each VM's copy may go so that no VM is ready long before the others. Pure.
//!
//! A copy that has sent everything looks for dirty pages, sends them, and looks again, as often as
//! it can, tens of thousands of times a second, and the VM's vCPUs wait each time. So a VM that fits
//! while another does not is slowed down to less than it dirties: then it has always something
//! left, and looks once in each tenth of a second, over which QEMU keeps to a bandwidth.

use std::collections::BTreeMap;

use crate::config::VmName;
use crate::operation::effects::CopyStatus;

/// Below this time to the end of its pass, the slowest is no reason to slow anybody down.
const NEAR_MS: u64 = 300;
/// Slowest pace, in bytes per second.
const CRAWL: u64 = 4 << 10;
/// Passes after which QEMU's expectation means something.
const PASSES: u64 = 2;

/// The paces of a gang's copies.
#[derive(Debug)]
pub(super) struct Pace {
    /// As configured; 0 for no limit.
    limit: u64,
    /// Fastest that was seen of any copy, in bytes per second.
    fastest: u64,
    /// Copies that are slowed down, and to what.
    slowed: BTreeMap<VmName, u64>,
}

impl Pace {
    /// Nobody is slowed down. `limit` in bytes per second, 0 for none.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            fastest: 0,
            slowed: BTreeMap::new(),
        }
    }

    /// What a copy could do if it were not slowed down, in bytes per second.
    pub fn nominal(&self, copy: &CopyStatus) -> u64 {
        let seen = self.fastest.max(copy.bandwidth).max(1);
        match self.limit {
            0 => seen,
            limit => seen.min(limit),
        }
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
        let slowest = self.slowest_ms(copies);
        let mut changes = BTreeMap::new();
        for (vm, copy) in copies {
            let left = self.left_ms(copy);
            let ahead = copy.passes > 0 && slowest > NEAR_MS && left.saturating_mul(2) < slowest;
            if ahead || fits(copy, self, downtime_ms) {
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
                changes.insert(vm.clone(), self.limit);
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
        let left = copies.iter().map(|(_, copy)| self.left_ms(copy));
        left.max().unwrap_or(0)
    }

    fn left_ms(&self, copy: &CopyStatus) -> u64 {
        let first = copy.passes == 0;
        let bytes = if first { copy.total } else { copy.remaining };
        copy.sending_ms(bytes, self.nominal(copy))
    }

    /// Nobody is slowed down any more: the bandwidths to set.
    pub fn all_off(&mut self) -> BTreeMap<VmName, u64> {
        let limit = self.limit;
        let slowed = std::mem::take(&mut self.slowed).into_keys();
        slowed.map(|vm| (vm, limit)).collect()
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

/// Whether the rest of a VM could be sent within the downtime.
pub(super) fn fits(copy: &CopyStatus, pace: &Pace, downtime_ms: u64) -> bool {
    // QEMU expects with the bandwidth it is allowed.
    let rest_ms = copy.sending_ms(copy.remaining, pace.nominal(copy));
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

    fn gang(copies: [CopyStatus; 2]) -> Vec<(VmName, CopyStatus)> {
        let [first, second] = copies;
        vec![
            ("vm1".parse().unwrap(), first),
            ("vm2".parse().unwrap(), second),
        ]
    }

    impl Pace {
        fn look_at(&mut self, copies: [CopyStatus; 2]) -> BTreeMap<VmName, u64> {
            self.look(&gang(copies), 300)
        }
    }

    #[test]
    fn a_vm_far_ahead_is_slowed_to_end_its_pass_with_the_slowest() {
        let mut pace = Pace::new(0);
        let changes = pace.look_at([copy(10 << 20, 1, 100 << 20), copy(900 << 20, 1, 100 << 20)]);
        let slowed = changes[&"vm1".parse().unwrap()];
        assert!((1 << 20..2 << 20).contains(&slowed), "{slowed}");
        assert!(!changes.contains_key(&"vm2".parse().unwrap()));
    }

    #[test]
    fn nobody_is_slowed_when_all_are_near_the_end() {
        let mut pace = Pace::new(0);
        let changes = pace.look_at([copy(35 << 20, 2, 100 << 20), copy(40 << 20, 2, 100 << 20)]);
        assert!(changes.is_empty());
    }

    #[test]
    fn a_vm_that_fits_always_has_something_left_until_the_others_fit() {
        let mut pace = Pace::new(0);
        let mut ready = copy(0, 2, 100 << 20);
        ready.dirty_rate = 3 << 20;
        let changes = pace.look_at([ready, copy(40 << 20, 2, 100 << 20)]);
        assert_eq!(changes, [("vm1".parse().unwrap(), 3 << 19)].into());
        let off = pace.all_off();
        assert_eq!(off, [("vm1".parse().unwrap(), 0)].into());
    }

    #[test]
    fn a_slowed_vm_goes_at_full_speed_again_when_the_others_have_caught_up() {
        let mut pace = Pace::new(0);
        pace.look_at([copy(10 << 20, 1, 100 << 20), copy(900 << 20, 1, 100 << 20)]);
        let changes = pace.look_at([copy(30 << 20, 1, 2 << 20), copy(40 << 20, 2, 100 << 20)]);
        assert_eq!(changes[&"vm1".parse().unwrap()], 0);
        assert!(pace.all_off().is_empty());
    }

    #[test]
    fn a_slowed_vm_fits_by_what_it_could_do() {
        let mut pace = Pace::new(0);
        pace.look_at([copy(10 << 20, 1, 100 << 20), copy(900 << 20, 1, 100 << 20)]);
        let mut slowed = copy(5 << 20, 2, 1 << 20);
        slowed.expected_downtime_ms = Some(5000);
        assert!(fits(&slowed, &pace, 300));
        slowed.remaining = 500 << 20;
        assert!(!fits(&slowed, &pace, 300));
    }
}

//! What the guests' devices have carried, for the report.

use std::time::Duration;

use tokio::time::Instant;

use super::Crew;
use crate::config::VmName;
use crate::operation::report::Traffic;

/// For the guests' reports, while the job runs: a busy emulated guest takes seconds.
const COUNTERS: Duration = Duration::from_secs(10);

impl Crew {
    /// The guest's counters, if its agent has told them.
    pub(super) fn traffic(&self, vm: &VmName) -> Option<Traffic> {
        let report = self.guests.devices(vm)?;
        let mut traffic = Traffic {
            verbs_devices: report.verbs.len(),
            ..Traffic::default()
        };
        for (received, sent) in report
            .verbs
            .iter()
            .flat_map(|device| &device.ports)
            .filter_map(|port| port.bytes)
        {
            traffic.verbs = traffic.verbs.saturating_add(received).saturating_add(sent);
        }
        for netdev in report.netdevs.iter().filter(|netdev| !netdev.hca) {
            let (received, sent) = netdev.bytes;
            traffic.netdevs = traffic
                .netdevs
                .saturating_add(received)
                .saturating_add(sent);
        }
        Some(traffic)
    }

    /// Asks all agents for their guests' counters, and waits a moment for them.
    pub(super) async fn fresh_counters(&self) {
        if !self.plan.ranks {
            return;
        }
        for vm in &self.plan.vms {
            self.guests.ask_devices(&vm.vm);
        }
        let deadline = Instant::now() + COUNTERS;
        let missing = || {
            self.plan
                .vms
                .iter()
                .any(|vm| !self.is_lost(&vm.vm) && self.guests.devices(&vm.vm).is_none())
        };
        while missing() && Instant::now() < deadline {
            tokio::time::sleep(COUNTERS / 500).await;
        }
    }
}

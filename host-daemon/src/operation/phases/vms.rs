//! Calls to a host for many VMs at a time, and VMs that are no more.
//!
//! A QEMU that ends takes its VM with it if it held the only copy: the source's until the VM has
//! arrived, the destination's from then on. The job is lost then, as it would be without us. What
//! remains is to say so at once and to leave the other VMs in a clean state, so phases that bring
//! things to an end pass over what is lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::Crew;
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::effects::{Host, HostCall, HostError, HostReply};
use crate::operation::phase::Phase;
use crate::operation::plan::VmPlan;

/// Interval at which hosts are asked whether the QEMUs are there.
const LOOK: Duration = Duration::from_secs(1);

impl Crew {
    /// Calls `host` for each VM of `vms` at the same time; all failures, in one sentence. What
    /// cannot be done because the VM is lost is no failure of a phase that brings things to an end.
    pub(super) async fn each<'a>(
        &self,
        host: &Arc<dyn Host>,
        vms: impl Iterator<Item = &'a VmPlan>,
        call: impl Fn(&VmPlan) -> HostCall,
    ) -> Result<Vec<(VmName, HostReply)>, String> {
        let calls = vms.map(|vm| {
            let call = host.call(call(vm));
            async move { (vm.vm.clone(), call.await) }
        });
        let ends = !self.shown.borrow().state.phase.can_cancel();
        let mut replies = Vec::new();
        let mut failures = Vec::new();
        for (vm, reply) in join_all(calls).await {
            match reply {
                Ok(reply) => replies.push((vm, reply)),
                Err(error) => {
                    if let HostError::Gone { how, .. } = &error
                        && Arc::ptr_eq(host, self.keeper(&vm))
                    {
                        self.lose(&vm, how);
                    }
                    if !(ends && self.is_lost(&vm)) {
                        failures.push(format!("{vm}: {}", chain(&error)));
                    }
                }
            }
        }
        if failures.is_empty() {
            Ok(replies)
        } else {
            Err(failures.join("; "))
        }
    }

    /// The host whose QEMU holds the only copy of the VM that could run.
    fn keeper(&self, vm: &VmName) -> &Arc<dyn Host> {
        match self.shown.borrow().state.has_arrived(vm) {
            true => &self.destination,
            false => &self.source,
        }
    }

    /// Notes that a VM is no more.
    pub(super) fn lose(&self, vm: &VmName, how: &str) {
        if self.is_lost(vm) {
            return;
        }
        self.measured().lost.push((vm.clone(), how.to_owned()));
        // The journal has it when the phase is over.
        self.doing(format!("{vm} is lost: {how}"));
        self.guests.lost(vm);
    }

    /// Whether a VM is no more.
    pub(super) fn is_lost(&self, vm: &VmName) -> bool {
        let told = self.shown.borrow().state.lost.contains(vm);
        told || self.measured().lost.iter().any(|(lost, _)| lost == vm)
    }

    /// Looks for QEMUs that end while a phase goes on that would not notice. Never returns.
    pub(super) async fn watch(&self, phase: Phase) {
        if matches!(
            phase,
            Phase::Prepare | Phase::Copy | Phase::CopyHeld | Phase::SwitchOver
        ) {
            // They see it themselves, or one that crosses may end.
            std::future::pending::<()>().await;
        }
        loop {
            sleep(LOOK).await;
            self.look_for_lost().await;
        }
    }

    /// Looks for QEMUs that have ended.
    pub(super) async fn look_for_lost(&self) {
        let left = self.plan.vms.iter().filter(|vm| !self.is_lost(&vm.vm));
        let looks = left.map(|vm| {
            let look = HostCall::Look { vm: vm.vm.clone() };
            let looking = self.keeper(&vm.vm).call(look);
            async move { (&vm.vm, looking.await) }
        });
        for (vm, seen) in join_all(looks).await {
            if let Err(HostError::Gone { how, .. }) = seen {
                self.lose(vm, &how);
            }
        }
    }
}

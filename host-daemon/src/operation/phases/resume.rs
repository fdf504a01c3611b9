//! An operation that an earlier daemon began.
//!
//! The phase in which that daemon ended is begun again: every phase finds done what was done. What
//! the earlier one knew by heart is found out again: where each VM is by the journal, what the gang
//! is on by asking its agents, who bring what the earlier daemon had begun with the ranks to an end.
//! VMs that may stand still cannot be asked; whoever lets them run asks then.

use std::time::Duration;

use super::{Crew, Outcome};
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::effects::{HostCall, Standing};
use crate::operation::phase::Phase;
use crate::operation::plan::VmPlan;
use crate::operation::report::VmReport;
use crate::operation::state::State;

/// For the agents of all guests to be heard, however busy they are.
const HEARING: Duration = Duration::from_secs(60);

impl Crew {
    /// Takes the operation up where the journal leaves it.
    pub fn take_up(&self, state: &State) {
        let mut measured = self.measured();
        measured.unmet = true;
        measured
            .report
            .notes
            .push(format!("symvirtd was restarted in phase {}", state.phase));
        for vm in &self.plan.vms {
            let arrived = state.has_arrived(&vm.vm);
            let host = self.destination_name().filter(|_| arrived);
            let host = Some(host.unwrap_or(&vm.source).clone());
            measured.report.vms.push(VmReport::new(vm.vm.clone(), host));
        }
    }

    /// Before the first phase of this daemon in which no VM may stand still: hears the gang.
    pub(super) async fn meet(&self, phase: Phase) {
        let vms_may_stand = matches!(
            phase,
            Phase::Copy
                | Phase::CopyHeld
                | Phase::SwitchOver
                | Phase::Postcopy
                | Phase::CancelCopy
                | Phase::Discard
        );
        if self.measured().unmet && !vms_may_stand {
            self.hear().await;
        }
    }

    async fn hear(&self) {
        self.measured().unmet = false;
        if !self.plan.ranks {
            return;
        }
        self.doing("hearing the guests again");
        let vms = self.plan.vms.iter().map(|vm| vm.vm.clone());
        let vms: Vec<VmName> = vms.filter(|vm| !self.is_lost(vm)).collect();
        match self.guests.recover(&vms, HEARING).await {
            Ok(standing) => self.measured().met = Some(standing),
            Err(failure) => self.note(format!("after the restart: {}", chain(&failure))),
        }
    }

    /// Begins to copy, or goes on; after a restart, once the VMs run that may have been stopped.
    pub(super) async fn begin_copies(&self, phase: Phase) -> Outcome {
        let (copying, unmet) = {
            let measured = self.measured();
            (measured.copying, measured.unmet)
        };
        if phase == Phase::CopyHeld && copying {
            return Ok(());
        }
        if phase == Phase::Copy && !unmet {
            return self.start_copies().await;
        }
        self.copy_anew().await?;
        if unmet {
            self.hear().await;
        }
        Ok(())
    }

    /// What the gang was found on, for the first switch after that.
    pub(super) fn take_met(&self) -> Option<Standing> {
        self.measured().met.take()
    }

    /// The journal cannot be written, so the operation stands. No VM is to stand with it: the next
    /// daemon copies anew. One that has crossed refuses.
    pub async fn stand_down(&self, phase: Phase) {
        let copies = [
            Phase::Copy,
            Phase::HoldLate,
            Phase::CopyHeld,
            Phase::SwitchOver,
        ];
        if !copies.contains(&phase) {
            return;
        }
        let cancel = |vm: &VmPlan| HostCall::CancelCopy { vm: vm.vm.clone() };
        let vms = self.plan.vms.iter();
        if let Err(reason) = self.each(&self.source, vms, cancel).await {
            tracing::error!(operation_id = %self.plan.id, reason, "VMs may stand still");
        }
    }

    /// Ends copies of which nothing is known any more, and begins anew. The VMs run meanwhile.
    pub(super) async fn copy_anew(&self) -> Outcome {
        let cancel = |vm: &VmPlan| HostCall::CancelCopy { vm: vm.vm.clone() };
        self.each(&self.source, self.plan.vms.iter(), cancel)
            .await?;
        self.discard_at_destination(self.plan.vms.iter()).await?;
        self.wait_at_destination().await?;
        self.start_copies().await
    }
}

//! Operations whose daemon ended in the middle, when the next one starts.
//!
//! Before the point of no return the VMs are brought back: copies are cancelled (one that goes on
//! alone would stop its VM before a switchover that nobody continues), what waits at the
//! destination is ended, HCAs are plugged back. Ranks are not switched: the new coordinator has
//! only just met them. Beyond that point nothing is touched, and an operator is told where to look.

use super::effects::{Host, HostCall};
use super::engine::Engine;
use super::phase::Phase;
use super::plan::{Plan, Request};
use super::state::State;
use crate::api::error::chain;

impl Engine {
    /// Brings an interrupted operation to an end.
    pub(super) async fn settle(&self, plan: &Plan, mut state: State) -> State {
        let phase = state.phase;
        let host = &self.config.host;
        let gang = plan.request.gang();
        let vms: Vec<_> = plan.vms.iter().map(|vm| vm.vm.as_str()).collect();
        let vms = vms.join(", ");
        if plan.is_in_place() || !(phase.can_cancel() || phase.is_rollback()) {
            state.reasons.push(format!(
                "symvirtd on {host} ended in phase {phase}; `symvirt vm list` on both hosts shows \
                 where {vms} run; end what waits (`incoming`) or has crossed (`migrated`) by \
                 `symvirt vm stop`, and bring the job to what it can use by \
                 `symvirt switch {gang} --to native`"
            ));
            state.phase = Phase::NeedsOperator;
            return state;
        }
        let left = self.bring_back(plan, &state).await;
        state
            .reasons
            .push(format!("symvirtd on {host} ended in phase {phase}"));
        state.phase = Phase::RolledBack;
        if !left.is_empty() {
            let left = left.join("; ");
            state
                .reasons
                .push(format!("{left}; see `symvirt vm list` on both hosts"));
            state.phase = Phase::NeedsOperator;
        }
        if has_touched(
            &state,
            phase,
            [Phase::Hold, Phase::RebuildBack, Phase::RebuildBackFallback],
        ) {
            state.reasons.push(format!(
                "ranks of {gang} may stand still, held by the earlier daemon: end the job and \
                 start it again"
            ));
            state.phase = Phase::NeedsOperator;
        } else if plan.ranks && has_touched(&state, phase, [Phase::LeaveHca, Phase::TakeBack]) {
            state.reasons.push(format!(
                "the job may run without its HCAs: `symvirt switch {gang} --to native`"
            ));
            state.phase = Phase::NeedsOperator;
        }
        state
    }

    /// What could not be brought back.
    async fn bring_back(&self, plan: &Plan, state: &State) -> Vec<String> {
        let mut left = Vec::new();
        let mut note = |outcome: Result<_, super::effects::HostError>| {
            if let Err(error) = outcome {
                left.push(chain(&error));
            }
        };
        for vm in &plan.vms {
            note(
                self.host
                    .call(HostCall::CancelCopy { vm: vm.vm.clone() })
                    .await,
            );
        }
        if let Request::Migrate { to, .. } = &plan.request
            && let Some(peer) = self.peers.get(to)
        {
            for vm in &plan.vms {
                let (operation, vm) = (plan.id.clone(), vm.vm.clone());
                note(peer.call(HostCall::Discard { operation, vm }).await);
            }
            let operation = plan.id.clone();
            note(peer.call(HostCall::Release { operation }).await);
        }
        if has_touched(state, state.phase, [Phase::Unplug, Phase::PlugBack]) {
            for vm in &plan.vms {
                if let Some(hca) = vm.source_hca.clone() {
                    note(
                        self.host
                            .call(HostCall::Plug {
                                vm: vm.vm.clone(),
                                hca,
                            })
                            .await,
                    );
                }
            }
        }
        left
    }
}

/// Whether the operation was in one of `phases`, or is.
fn has_touched<const N: usize>(state: &State, now: Phase, phases: [Phase; N]) -> bool {
    phases
        .iter()
        .any(|phase| *phase == now || state.done.contains(phase))
}

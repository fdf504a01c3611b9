//! From a request to a plan. Looks at both hosts, reserves at the destination, changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Denial;
use super::effects::{Host, HostCall, HostError, HostReply};
use super::engine::Engine;
use super::journal::JournalError;
use super::plan::{OperationId, Plan, Request, VmPlan};
use crate::api::model::{VmInfo, VmState};
use crate::config::{GangName, HcaName, HostName, VmName};
use crate::guest::{AgentView, Gang, GangView};

/// How long after its start a daemon waits for agents before it takes them for absent.
const HEARING: Duration = Duration::from_secs(10);

/// Why an operation was not begun.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It is refused.
    #[error(transparent)]
    Denial(#[from] Denial),
    /// A host could not say whether it can take part.
    #[error("ask whether the operation is possible")]
    Host(#[source] HostError),
    /// It could not be written down.
    #[error("begin the operation's journal")]
    Journal(#[source] JournalError),
}

/// A plan, and what its operation works with.
pub(super) struct Validated {
    pub plan: Plan,
    pub gang: Gang,
    pub destination: Option<Arc<dyn Host>>,
    pub notes: Vec<String>,
}

impl Engine {
    pub(super) async fn validate(
        &self,
        id: OperationId,
        request: Request,
    ) -> Result<Validated, Denied> {
        if let Request::Migrate { limits, .. } = &request
            && let Some(contradiction) = limits.contradiction()
        {
            let message = contradiction.into();
            return Err(Denial::BadBounds { message }.into());
        }
        let name = request.gang().clone();
        let vms: Vec<_> = self
            .host
            .list()
            .await
            .into_iter()
            .filter(|vm| vm.gang == name)
            .collect();
        let Some(gang) = self.gangs.get(&name).filter(|_| !vms.is_empty()) else {
            return Err(self.unknown_gang(name).await.into());
        };
        if let Request::Migrate { gang, to, .. } = &request
            && *to == self.config.host
        {
            return Err(Denial::AlreadyThere {
                gang: gang.clone(),
                host: to.clone(),
            }
            .into());
        }
        if let Some(vm) = vms.iter().find(|vm| vm.state != VmState::Running) {
            let state = vm.state.to_string();
            return Err(Denial::NotRunning {
                vm: vm.name.clone(),
                state,
            }
            .into());
        }
        // A daemon that has just started may not have heard of its ranks yet. After a gang was
        // taken over they were waited for.
        let young = HEARING.saturating_sub(self.started.elapsed());
        let names: Vec<_> = vms.iter().map(|vm| vm.name.clone()).collect();
        gang.heard(&names, young).await;
        let view = gang.view();
        let mut notes = Vec::new();
        let (destination, hcas) = match &request {
            Request::Switch { .. } => (None, BTreeMap::new()),
            Request::Migrate { to, .. } => {
                let (peer, hcas) = self.admit_at(&id, &name, to, &mut notes).await?;
                (Some(peer), hcas)
            }
        };
        if view.ranks.is_empty() && matches!(request, Request::Switch { .. }) {
            notes.push("the gang has no ranks now: the switch is for its next job".into());
        }
        let plan = Plan {
            id,
            request_id: None,
            vms: vms
                .iter()
                .map(|vm| self.plan_vm(vm, &request, &hcas))
                .collect(),
            ranks: !view.ranks.is_empty(),
            interconnect: view.interconnect,
            planned_ms: self.clock.now_ms(),
            request,
        };
        if let Err(denial) = check_agents(&plan, &view) {
            self.release_reservation(&plan, destination.as_ref()).await;
            return Err(denial.into());
        }
        Ok(Validated {
            plan,
            gang,
            destination,
            notes,
        })
    }

    fn plan_vm(&self, vm: &VmInfo, request: &Request, hcas: &BTreeMap<VmName, HcaName>) -> VmPlan {
        let moves = matches!(request, Request::Migrate { .. });
        VmPlan {
            vm: vm.name.clone(),
            source: self.config.host.clone(),
            source_hca: vm.hca.clone().filter(|_| moves),
            destination_hca: hcas.get(&vm.name).cloned(),
        }
    }

    /// A gang that is not here may be on a peer: the operator is told where to ask.
    async fn unknown_gang(&self, gang: GangName) -> Denial {
        let known = self.host.gang_names();
        let mut elsewhere = None;
        for peer in self.peers.values() {
            // One that does not answer is not what was asked about.
            if let Ok(info) = peer.greet().await
                && info.gangs.contains(&gang)
            {
                elsewhere = Some(info.host);
            }
        }
        let host = self.config.host.clone();
        Denial::UnknownGang {
            gang,
            host,
            known,
            elsewhere,
        }
    }

    async fn admit_at(
        &self,
        id: &OperationId,
        gang: &GangName,
        to: &HostName,
        notes: &mut Vec<String>,
    ) -> Result<(Arc<dyn Host>, BTreeMap<VmName, HcaName>), Denied> {
        let Some(peer) = self.peers.get(to) else {
            let known = self.peers.keys().cloned().collect();
            return Err(Denial::UnknownHost {
                host: to.clone(),
                known,
            }
            .into());
        };
        peer.greet().await?;
        let vms = self.host.specs(gang);
        let call = HostCall::Admit {
            operation: id.clone(),
            vms,
        };
        match peer.call(call).await {
            Ok(HostReply::Admitted { hcas, free, wanted }) => {
                if hcas.is_empty() && wanted > 0 {
                    notes.push(format!(
                        "host {to} has {free} free HCAs for {wanted} VMs: the job goes on \
                         without"
                    ));
                }
                Ok((peer.clone(), hcas))
            }
            Ok(_) => Err(Denied::Host(HostError::Failed {
                host: to.clone(),
                reason: "the answer is not understood".into(),
            })),
            Err(HostError::Denied(denial)) => Err(denial.into()),
            Err(HostError::Unreachable { host, reason }) => {
                Err(Denial::Unreachable { host, reason }.into())
            }
            Err(error @ (HostError::Failed { .. } | HostError::Gone { .. })) => {
                Err(Denied::Host(error))
            }
        }
    }

    /// Gives back what was reserved for an operation that is not begun. If the peer cannot be
    /// reached now, it forgets with its restart.
    pub(super) async fn release_reservation(
        &self,
        plan: &Plan,
        destination: Option<&Arc<dyn Host>>,
    ) {
        if let Some(destination) = destination {
            let call = HostCall::Release {
                operation: plan.id.clone(),
            };
            if let Err(error) = destination.call(call).await {
                tracing::warn!(operation_id = %plan.id, %error, "reservation not given back");
            }
        }
    }
}

/// An HCA is only taken from, or given to, a guest whose agent can be understood.
fn check_agents(plan: &Plan, view: &GangView) -> Result<(), Denial> {
    let switches = matches!(plan.request, Request::Switch { .. });
    for vm in &plan.vms {
        let agent = view
            .guests
            .get(&vm.vm)
            .map(|guest| guest.agent.clone())
            .unwrap_or_default();
        match agent {
            AgentView::Present { .. } => {}
            AgentView::Incompatible(reason) => {
                return Err(Denial::AgentVersion {
                    vm: vm.vm.clone(),
                    reason,
                });
            }
            AgentView::Silent if vm.source_hca.is_some() || switches => {
                return Err(Denial::NoAgent { vm: vm.vm.clone() });
            }
            AgentView::Silent => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GuestView;
    use crate::operation::plan::{Limits, Mode, Target};

    fn plan(request: Request, hca: bool, ranks: bool) -> Plan {
        let source: HostName = "a".parse().unwrap();
        Plan {
            request_id: None,
            id: OperationId::nth(&source, 1),
            vms: vec![VmPlan {
                vm: "vm1".parse().unwrap(),
                source,
                source_hca: hca.then(|| "hca0".parse().unwrap()),
                destination_hca: None,
            }],
            request,
            ranks,
            interconnect: Target::Native,
            planned_ms: 0,
        }
    }

    fn migrate() -> Request {
        Request::Migrate {
            gang: "job".parse().unwrap(),
            to: "b".parse().unwrap(),
            mode: Mode::Live,
            limits: Limits::default(),
        }
    }

    fn switch() -> Request {
        Request::Switch {
            gang: "job".parse().unwrap(),
            to: Target::Native,
            mode: Mode::Live,
            limits: Limits::default(),
        }
    }

    fn view(agent: AgentView) -> GangView {
        let guest = GuestView {
            agent,
            ..GuestView::default()
        };
        GangView {
            guests: [("vm1".parse().unwrap(), guest)].into(),
            ranks: vec![],
            epoch: 0,
            interconnect: Target::Native,
            held: false,
            died_held: None,
        }
    }

    fn present() -> AgentView {
        AgentView::Present {
            guest: "g".into(),
            version: "1".into(),
        }
    }

    fn code(plan: &Plan, agent: AgentView) -> Option<&'static str> {
        check_agents(plan, &view(agent))
            .err()
            .map(|denial| denial.code())
    }

    #[test]
    fn a_vm_without_hca_needs_no_agent_to_be_moved() {
        assert_eq!(
            code(&plan(migrate(), false, false), AgentView::Silent),
            None
        );
    }

    #[test]
    fn an_hca_is_not_taken_from_a_guest_without_agent() {
        assert_eq!(
            code(&plan(migrate(), true, false), AgentView::Silent),
            Some("no-agent")
        );
        assert_eq!(code(&plan(migrate(), true, false), present()), None);
    }

    #[test]
    fn an_agent_of_another_version_is_refused_by_name() {
        let agent = AgentView::Incompatible("it speaks protocol version 9".into());
        assert_eq!(
            code(&plan(migrate(), true, true), agent),
            Some("agent-version")
        );
    }

    #[test]
    fn a_switch_in_place_needs_agents_but_no_ranks() {
        for ranks in [false, true] {
            let plan = plan(switch(), false, ranks);
            assert_eq!(code(&plan, AgentView::Silent), Some("no-agent"));
            assert_eq!(code(&plan, present()), None, "it is for the next job");
        }
    }
}

//! Which operations leave a wish. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{GangName, HcaName, VmName};
use crate::operation::{OperationId, Phase, Plan, Request, State, Target};

/// What an operation could not give a gang.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// The operation.
    pub operation: OperationId,
    /// The gang, whose job is to run on its HCAs.
    pub gang: GangName,
    /// The HCAs that are its VMs', if they have none yet.
    pub hcas: BTreeMap<VmName, HcaName>,
    /// Why the operation could not.
    pub reason: String,
}

/// The wish that an operation leaves, if its gang is whole and on one host: the destination's once
/// the VMs have crossed, the source's else.
pub fn wanted(plan: &Plan, state: &State) -> Option<Wish> {
    let whole = [&state.lost, &state.stayed, &state.unknown]
        .iter()
        .all(|vms| vms.is_empty());
    if !state.lesser || state.stuck || !whole {
        return None;
    }
    let crossed = state.done.contains(&Phase::SwitchOver);
    let native = match &plan.request {
        Request::Switch { to, .. } => *to == Target::Native,
        Request::Migrate { .. } if crossed => plan.takes_hca(),
        Request::Migrate { .. } => plan.ranks && plan.interconnect == Target::Native,
    };
    if !native {
        return None;
    }
    let hca = |vm: &crate::operation::VmPlan| match crossed {
        true => vm.destination_hca.clone(),
        false => vm.source_hca.clone(),
    };
    let hcas = plan.vms.iter();
    Some(Wish {
        operation: plan.id.clone(),
        gang: plan.request.gang().clone(),
        hcas: hcas
            .filter_map(|vm| Some((vm.vm.clone(), hca(vm)?)))
            .collect(),
        reason: state.reason().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::state::{Event, next};
    use crate::operation::{Limits, Mode, VmPlan};

    fn plan(ranks: bool) -> Plan {
        Plan {
            request_id: None,
            id: "a-7".parse().unwrap(),
            request: Request::Migrate {
                gang: "job".parse().unwrap(),
                to: "b".parse().unwrap(),
                mode: Mode::Live,
                limits: Limits::default(),
            },
            vms: vec![VmPlan {
                vm: "vm1".parse().unwrap(),
                source: "a".parse().unwrap(),
                source_hca: Some("here".parse().unwrap()),
                destination_hca: Some("there".parse().unwrap()),
            }],
            ranks,
            interconnect: Target::Native,
            planned_ms: 0,
        }
    }

    /// The state in which `failing` has failed and everything else went well.
    fn ended(plan: &Plan, failing: &[Phase]) -> State {
        let mut state = State::start(plan);
        while !state.phase.is_terminal() {
            let event = match failing.contains(&state.phase) {
                true => Event::Failed {
                    reason: "no carrier".into(),
                },
                false => Event::Completed,
            };
            state = next(plan, state, event);
        }
        state
    }

    fn hcas(wish: Option<Wish>) -> Vec<String> {
        let hcas = wish.into_iter().flat_map(|wish| wish.hcas.into_values());
        hcas.map(|hca| hca.to_string()).collect()
    }

    #[test]
    fn an_hca_that_did_not_come_up_is_wished_for_where_the_gang_is() {
        let plan = plan(true);
        for phase in [Phase::Plug, Phase::AwaitLink, Phase::TakeHca] {
            let state = ended(&plan, &[phase]);
            assert_eq!(state.phase, Phase::Degraded);
            assert_eq!(hcas(wanted(&plan, &state)), ["there"], "{phase}");
        }
        for phase in [Phase::PlugBack, Phase::AwaitLinkBack, Phase::TakeBack] {
            let state = ended(&plan, &[Phase::Copy, phase]);
            assert_eq!(state.phase, Phase::Degraded);
            assert_eq!(hcas(wanted(&plan, &state)), ["here"], "{phase}");
        }
    }

    #[test]
    fn nothing_is_wished_for_that_was_not_asked_for() {
        let plan = plan(true);
        assert_eq!(wanted(&plan, &ended(&plan, &[])), None, "done");
        assert_eq!(
            wanted(&plan, &ended(&plan, &[Phase::Copy])),
            None,
            "rolled back"
        );
        assert_eq!(
            wanted(&plan, &ended(&plan, &[Phase::AwaitLink, Phase::CleanUp])),
            None,
            "somebody has to act first"
        );
        let mut split = ended(&plan, &[Phase::AwaitLink]);
        split.stayed.insert("vm1".parse().unwrap());
        assert_eq!(wanted(&plan, &split), None, "the gang is on two hosts");
        let nobody = super::tests::plan(false);
        let state = ended(&nobody, &[Phase::Plug]);
        assert_eq!(
            wanted(&nobody, &state),
            None,
            "its next job finds what there is"
        );
    }
}

//! What is done next for a wish. Pure.

use super::Wish;
use crate::config::{HcaName, VmName};
use crate::operation::{OperationId, Target};

/// What is seen of a gang.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The operation under way on it.
    pub busy: Option<OperationId>,
    /// What it communicates over.
    pub interconnect: Target,
    /// Its VMs on this host.
    pub vms: Vec<SeenVm>,
}

/// What is seen of a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenVm {
    /// Which.
    pub vm: VmName,
    /// Whether it runs.
    pub running: bool,
    /// Whether its agent was heard: without, nobody knows what its ranks are on.
    pub heard: bool,
    /// The HCA that is plugged.
    pub hca: Option<HcaName>,
    /// Its port, as its guest sees it.
    pub port: Port,
}

/// The port of an HCA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Port {
    /// The agent has not told.
    Unknown,
    /// There is none that is active.
    Down,
    /// It is, with these GIDs.
    Active(Vec<String>),
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing, never again: why.
    Drop(String),
    /// Nothing now: why.
    Wait(String),
    /// Plug an HCA.
    Plug(VmName, HcaName),
    /// Move the job onto its HCAs.
    Switch,
}

/// What is to be done after a look; `before` is the one before it.
pub fn step(wish: &Wish, before: Option<&Seen>, seen: &Seen) -> Step {
    if let Some(operation) = &seen.busy {
        return Step::Wait(format!("{operation} is under way"));
    }
    if seen.vms.is_empty() {
        return Step::Drop("the gang has left this host".into());
    }
    for vm in &seen.vms {
        if !vm.running {
            return Step::Wait(format!("{} does not run", vm.vm));
        }
        if !vm.heard {
            return Step::Wait(format!("the agent of {} is silent", vm.vm));
        }
    }
    if seen.interconnect == Target::Native {
        // Until its ranks have told, a daemon that has just started takes a gang for that.
        return match before == Some(seen) {
            true => Step::Drop("the job is on its HCAs".into()),
            false => Step::Wait("is the job on its HCAs?".into()),
        };
    }
    for vm in &seen.vms {
        match (&vm.hca, wish.hcas.get(&vm.vm)) {
            (Some(_), _) => {}
            (None, Some(hca)) => return Step::Plug(vm.vm.clone(), hca.clone()),
            (None, None) => return Step::Wait(format!("{} has no HCA", vm.vm)),
        }
    }
    for vm in &seen.vms {
        match &vm.port {
            Port::Unknown => return Step::Wait(format!("{} has not told its ports", vm.vm)),
            Port::Down => return Step::Wait(format!("no port of {}'s HCA is active", vm.vm)),
            Port::Active(_) => {}
        }
    }
    // The GIDs of a port change for a moment after it has come up.
    match before.is_some_and(|before| before.vms == seen.vms) {
        true => Step::Switch,
        false => Step::Wait("the ports have come up; are their addresses settled?".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wish() -> Wish {
        let hca = |n: usize| {
            let vm = format!("vm{n}").parse().unwrap();
            (vm, format!("hca{n}").parse().unwrap())
        };
        Wish {
            operation: "a-7".parse().unwrap(),
            gang: "job".parse().unwrap(),
            hcas: [hca(1), hca(2)].into(),
            reason: "no carrier".into(),
        }
    }

    fn port() -> impl Strategy<Value = Port> {
        prop_oneof![
            Just(Port::Unknown),
            Just(Port::Down),
            Just(Port::Active(vec!["fe80::1".into()])),
            Just(Port::Active(vec!["fe80::1".into(), "10.0.0.1".into()])),
        ]
    }

    fn vm() -> impl Strategy<Value = SeenVm> {
        let hca = proptest::option::of(Just("hca9".parse().unwrap()));
        let often = || proptest::bool::weighted(0.9);
        let vm = (1..=3usize, often(), often(), hca, port());
        vm.prop_map(|(n, running, heard, hca, port)| SeenVm {
            vm: format!("vm{n}").parse().unwrap(),
            running,
            heard,
            hca,
            port,
        })
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let busy = proptest::option::of(Just("a-8".parse().unwrap()));
        let on = prop_oneof![Just(Target::Native), Just(Target::Fallback)];
        let vms = proptest::collection::vec(vm(), 0..3);
        (busy, on, vms).prop_map(|(busy, interconnect, vms)| Seen {
            busy,
            interconnect,
            vms,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_job_is_moved_only_onto_hcas_that_are_all_there_and_settled(
            seen in seen(), other in seen(), same in any::<bool>(),
        ) {
            let before = if same { seen.clone() } else { other };
            let step = step(&wish(), Some(&before), &seen);
            let ready = |vm: &SeenVm| {
                vm.running && vm.heard && vm.hca.is_some() && matches!(vm.port, Port::Active(_))
            };
            let may = seen.busy.is_none()
                && seen.interconnect == Target::Fallback
                && !seen.vms.is_empty()
                && seen.vms.iter().all(ready)
                && before.vms == seen.vms;
            prop_assert_eq!(step == Step::Switch, may, "{:?}", step);
        }

        #[test]
        fn nothing_is_done_beside_an_operation(mut seen in seen(), before in seen()) {
            seen.busy = Some("a-8".parse().unwrap());
            prop_assert!(matches!(step(&wish(), Some(&before), &seen), Step::Wait(_)));
        }

        #[test]
        fn only_what_is_missing_is_plugged_and_only_what_is_the_vms_own(seen in seen()) {
            if let Step::Plug(vm, hca) = step(&wish(), None, &seen) {
                prop_assert_eq!(wish().hcas.get(&vm).cloned(), Some(hca));
                prop_assert!(seen.vms.iter().any(|there| there.vm == vm && there.hca.is_none()));
            }
        }
    }
}

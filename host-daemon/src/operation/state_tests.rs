//! Promises of the state machine, for every order of events and every plan.

use proptest::prelude::*;

use super::phase::Phase;
use super::plan::{IfNotConverging, Limits, Mode, OperationId, Plan, Request, Target, VmPlan};
use super::state::{Event, State, next};

fn plan() -> impl Strategy<Value = Plan> {
    let request = prop_oneof![
        (Just(Mode::Live), any::<bool>()).prop_map(migrate),
        (Just(Mode::Hold), any::<bool>()).prop_map(migrate),
        Just(Mode::Live).prop_map(switch),
        Just(Mode::Hold).prop_map(switch),
    ];
    let hca = || proptest::option::of(Just("hca0".parse().unwrap()));
    let target = prop_oneof![Just(Target::Native), Just(Target::Fallback)];
    (request, hca(), hca(), any::<bool>(), target).prop_map(
        |(request, source_hca, destination_hca, ranks, interconnect)| Plan {
            request_id: None,
            id: OperationId::nth(&"a".parse().unwrap(), 1),
            request,
            vms: vec![VmPlan {
                vm: "vm1".parse().unwrap(),
                source: "a".parse().unwrap(),
                source_hca,
                destination_hca,
            }],
            ranks,
            interconnect,
            planned_ms: 0,
        },
    )
}

fn migrate((mode, postcopy): (Mode, bool)) -> Request {
    let if_not_converging = match postcopy {
        true => IfNotConverging::Postcopy,
        false => IfNotConverging::Refuse,
    };
    Request::Migrate {
        gang: "job".parse().unwrap(),
        to: "b".parse().unwrap(),
        mode,
        limits: Limits {
            if_not_converging,
            ..Limits::default()
        },
    }
}

fn switch(mode: Mode) -> Request {
    Request::Switch {
        gang: "job".parse().unwrap(),
        to: Target::Fallback,
        mode,
        limits: Limits::default(),
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Completed),
        2 => Just(Event::Failed { reason: "it broke".into() }),
        1 => Just(Event::CancelRequested),
        1 => Just(Event::Interrupted),
        1 => Just(Event::Lost { vm: "vm1".parse().unwrap(), why: "it broke".into() }),
        2 => any::<bool>().prop_map(|settled| Event::Broke { reason: "it broke".into(), settled }),
        1 => Just(Event::Diverges { reason: "it dirties too much".into() }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(stayed, unknown)| {
            let some = |wanted: bool| {
                wanted.then(|| ("vm1".parse().unwrap(), "it broke".to_owned())).into_iter().collect()
            };
            Event::Split { stayed: some(stayed), unknown: some(unknown) }
        }),
    ]
}

/// Whether the phase is about the gang's transports.
fn switches(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Switch
            | Phase::LeaveHca
            | Phase::Hold
            | Phase::HoldLate
            | Phase::TakeHca
            | Phase::Rebuild
            | Phase::RebuildFallback
            | Phase::TakeBack
            | Phase::RebuildBack
            | Phase::RebuildBackFallback
    )
}

/// The states that `events` lead through; a split is only said at a switchover, and a break only
/// of a switch of transports.
fn walk(plan: &Plan, events: &[Event]) -> Vec<State> {
    let mut states = vec![State::start(plan)];
    for event in events {
        let state = states.last().unwrap().clone();
        states.push(walk_on(plan, state, event));
    }
    states
}

fn walk_on(plan: &Plan, state: State, event: &Event) -> State {
    let event = match event {
        Event::Split { .. } if state.phase != Phase::SwitchOver => &Event::Completed,
        Event::Diverges { .. } if state.phase != Phase::Copy => &Event::Completed,
        Event::Broke { .. } if !switches(state.phase) => &Event::Completed,
        event => event,
    };
    next(plan, state, event.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_order_of_events_ends_in_a_terminal_state(
        plan in plan(),
        mut events in proptest::collection::vec(event(), 60),
    ) {
        // Cancels, restarts and losses do not move an operation, everything else does.
        events.extend((0..30).map(|_| Event::Completed));
        let last = walk(&plan, &events).pop().unwrap();
        prop_assert!(last.phase.is_terminal(), "{last:?}");
    }

    #[test]
    fn nothing_is_done_with_vms_before_their_memory_has_followed(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        for pair in walk(&plan, &events).windows(2) {
            let [before, after] = pair else { unreachable!("pairs") };
            if before.phase == Phase::SwitchOver && plan.limits().may_postcopy() {
                let goes_on = [Phase::SwitchOver, Phase::Postcopy, Phase::NeedsOperator];
                prop_assert!(goes_on.contains(&after.phase), "{after:?}");
            }
        }
    }

    #[test]
    fn after_the_point_of_no_return_nothing_is_rolled_back(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let mut crossed = false;
        for state in walk(&plan, &events) {
            crossed |= state.phase == Phase::SwitchOver;
            if crossed {
                prop_assert!(!state.phase.is_rollback(), "{state:?}");
                prop_assert_ne!(state.phase, Phase::RolledBack);
            }
        }
    }

    #[test]
    fn no_phase_is_entered_twice(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let mut phases: Vec<_> = walk(&plan, &events).iter().map(|state| state.phase).collect();
        phases.dedup();
        let mut unique = phases.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(phases.len(), unique.len());
    }

    #[test]
    fn what_was_unplugged_is_plugged_again_before_a_rollback_ends(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let states = walk(&plan, &events);
        let entered = |phase| states.iter().any(|state| state.phase == phase);
        if entered(Phase::RolledBack) && entered(Phase::Unplug) {
            prop_assert!(entered(Phase::PlugBack));
        }
        if entered(Phase::RolledBack) && states.iter().any(|s| s.done.contains(&Phase::Hold)) {
            prop_assert!(states.last().unwrap().done.contains(&Phase::RebuildBack));
        }
    }

    #[test]
    fn ranks_that_a_broken_switch_has_moved_are_taken_back_before_a_rollback_ends(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let states = walk(&plan, &events);
        let last = states.last().unwrap();
        let entered = |phase| states.iter().any(|state| state.phase == phase);
        if last.phase == Phase::RolledBack && last.done.contains(&Phase::LeaveHca) {
            prop_assert!(entered(Phase::TakeBack), "{last:?}");
        }
        if entered(Phase::RolledBack) {
            prop_assert!(!last.done.contains(&Phase::Switch), "{last:?}");
        }
    }

    #[test]
    fn a_break_that_not_all_have_answered_ends_with_an_operator(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let mut state = State::start(&plan);
        let mut unsettled = false;
        for event in &events {
            if let Event::Broke { settled: false, .. } = event && switches(state.phase) {
                unsettled = true;
            }
            state = walk_on(&plan, state, event);
        }
        if unsettled && state.phase.is_terminal() {
            prop_assert_eq!(state.phase, Phase::NeedsOperator);
        }
    }

    #[test]
    fn a_held_job_never_ends_held_without_an_operator_being_told(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let last = walk(&plan, &events).pop().unwrap();
        let held = last.done.contains(&Phase::Hold);
        let rebuilt = [Phase::Rebuild, Phase::RebuildFallback, Phase::RebuildBack,
            Phase::RebuildBackFallback].iter().any(|phase| last.done.contains(phase));
        if last.phase.is_terminal() && held && !rebuilt {
            prop_assert_eq!(last.phase, Phase::NeedsOperator);
        }
    }

    #[test]
    fn an_end_other_than_done_has_a_reason(
        plan in plan(),
        events in proptest::collection::vec(event(), 60),
    ) {
        let last = walk(&plan, &events).pop().unwrap();
        if last.phase.is_terminal() && last.phase != Phase::Done {
            prop_assert!(last.reason().is_some() , "{last:?}");
        }
    }
}

#[test]
fn a_cancel_before_the_point_of_no_return_ends_rolled_back() {
    let plan = Plan {
        request_id: None,
        id: OperationId::nth(&"a".parse().unwrap(), 1),
        request: migrate((Mode::Live, false)),
        vms: vec![],
        ranks: false,
        interconnect: Target::Native,
        planned_ms: 0,
    };
    let mut events = vec![Event::Completed, Event::CancelRequested];
    events.extend((0..10).map(|_| Event::Completed));
    let states = walk(&plan, &events);
    assert_eq!(states.last().unwrap().phase, Phase::RolledBack);
    assert_eq!(states.last().unwrap().reason().unwrap(), "cancelled");
}

#[test]
fn a_gang_without_ranks_whose_last_job_ended_on_fallback_takes_the_hcas_it_is_given() {
    let vm = VmPlan {
        vm: "vm1".parse().unwrap(),
        source: "a".parse().unwrap(),
        source_hca: None,
        destination_hca: Some("hca0".parse().unwrap()),
    };
    let mut plan = Plan {
        request_id: None,
        id: OperationId::nth(&"a".parse().unwrap(), 1),
        request: migrate((Mode::Live, false)),
        vms: vec![vm],
        ranks: false,
        interconnect: Target::Fallback,
        planned_ms: 0,
    };
    let takes = |plan: &Plan| {
        let events: Vec<_> = (0..10).map(|_| Event::Completed).collect();
        let states = walk(plan, &events);
        assert_eq!(states.last().unwrap().phase, Phase::Done);
        states.iter().any(|state| state.phase == Phase::TakeHca)
    };
    assert!(takes(&plan));
    plan.interconnect = Target::Native;
    assert!(!takes(&plan), "its next job starts on what UCX finds");
}

//! Promises of the state machine, for every order of events and every plan.

use proptest::prelude::*;

use super::plan::{Limits, Mode, OperationId, Plan, Request, Target, VmPlan};
use super::state::{Event, Phase, State, next};

fn plan() -> impl Strategy<Value = Plan> {
    let request = prop_oneof![
        Just(Mode::Live).prop_map(migrate),
        Just(Mode::Hold).prop_map(migrate),
        Just(Request::Switch {
            gang: "job".parse().unwrap(),
            to: Target::Fallback,
            limits: Limits::default()
        }),
    ];
    let hca = || proptest::option::of(Just("hca0".parse().unwrap()));
    let target = prop_oneof![Just(Target::Native), Just(Target::Fallback)];
    (request, hca(), hca(), any::<bool>(), target).prop_map(
        |(request, source_hca, destination_hca, ranks, interconnect)| Plan {
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

fn migrate(mode: Mode) -> Request {
    Request::Migrate {
        gang: "job".parse().unwrap(),
        to: "b".parse().unwrap(),
        mode,
        limits: Limits::default(),
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Completed),
        2 => Just(Event::Failed { reason: "it broke".into() }),
        1 => Just(Event::CancelRequested),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(stayed, unknown)| {
            let some = |wanted: bool| {
                wanted.then(|| ("vm1".parse().unwrap(), "it broke".to_owned())).into_iter().collect()
            };
            Event::Split { stayed: some(stayed), unknown: some(unknown) }
        }),
    ]
}

/// The states that `events` lead through; a split is only said at a switchover.
fn walk(plan: &Plan, events: &[Event]) -> Vec<State> {
    let mut states = vec![State::start(plan)];
    for event in events {
        let state = states.last().unwrap().clone();
        let event = match event {
            Event::Split { .. } if state.phase != Phase::SwitchOver => &Event::Completed,
            event => event,
        };
        states.push(next(plan, state, event.clone()));
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_order_of_events_ends_in_a_terminal_state(
        plan in plan(),
        mut events in proptest::collection::vec(event(), 60),
    ) {
        // Cancels do not move an operation, everything else does.
        events.extend((0..30).map(|_| Event::Completed));
        let last = walk(&plan, &events).pop().unwrap();
        prop_assert!(last.phase.is_terminal(), "{last:?}");
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
        id: OperationId::nth(&"a".parse().unwrap(), 1),
        request: migrate(Mode::Live),
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

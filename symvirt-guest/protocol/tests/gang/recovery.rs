//! A coordinator is killed at any moment, and the next one settles what it left: every rank is in
//! one epoch with its gate open, or every rank is held. Totals are checked inside the world.

use proptest::prelude::*;
use symvirt_protocol::gang::{Outcome, Phase, Reason, Refusal};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::SwitchOrder;
use symvirt_protocol::transport::Interconnect;

use crate::world::{World, explicit, guest_id};

const MBB: SwitchOrder = SwitchOrder::MakeBeforeBreak;
const BBM: SwitchOrder = SwitchOrder::BreakBeforeMake;

#[derive(Clone, Debug)]
enum Act {
    Step(usize),
    Send(u64, u64),
    Leave(u64),
    Kill(u64),
    Veto(u64),
    Fill(u64),
    Spawn(usize),
    Switch(bool),
    Rebuild,
    Abort,
    Replace,
    Recover,
}

fn act(deadly: bool) -> impl Strategy<Value = Act> {
    prop_oneof![
        80 => (0..9usize).prop_map(Act::Step),
        8 => (1..9u64, 1..9u64).prop_map(|(from, to)| Act::Send(from, to)),
        1 => (1..9u64).prop_map(Act::Leave),
        2 => (1..9u64).prop_map(move |it| if deadly { Act::Kill(it) } else { Act::Send(it, 1) }),
        1 => (1..9u64).prop_map(Act::Veto),
        2 => (1..9u64).prop_map(Act::Fill),
        1 => any::<usize>().prop_map(Act::Spawn),
        8 => any::<bool>().prop_map(Act::Switch),
        4 => Just(Act::Rebuild),
        1 => Just(Act::Abort),
        2 => Just(Act::Replace),
        4 => Just(Act::Recover),
    ]
}

fn play(world: &mut World, acts: Vec<Act>) {
    for act in acts {
        match act {
            Act::Step(queue) => {
                world.step(queue % world.queues());
            }
            Act::Send(from, to) => world.send(ProcId(from), ProcId(to), 1),
            Act::Leave(process) => world.leave(ProcId(process)),
            Act::Kill(process) => world.kill(ProcId(process)),
            Act::Veto(process) => {
                if let Some(rank) = world.ranks.get_mut(&ProcId(process)) {
                    rank.veto_next = true;
                }
            }
            Act::Fill(process) => {
                if let Some(rank) = world.ranks.get_mut(&ProcId(process)) {
                    rank.load.room = !rank.load.room;
                }
            }
            Act::Spawn(guest) => {
                world.spawn(guest % world.guests);
            }
            Act::Switch(make_first) => {
                let order = if make_first { MBB } else { BBM };
                let epoch = world.gang.next_epoch();
                // A gang begins nothing before it has met all of its guests.
                if world.gang.guests().count() == world.guests
                    && let Ok(effects) = world.gang.switch(epoch, explicit("tcp"), order)
                {
                    world.apply(effects);
                }
            }
            Act::Rebuild => {
                if let Ok(effects) = world.gang.rebuild(Interconnect::Native) {
                    world.apply(effects);
                }
            }
            Act::Abort => {
                if let Ok(effects) = world.gang.abort() {
                    world.apply(effects);
                }
            }
            Act::Replace => world.replace_coordinator(),
            Act::Recover => {
                world.recover();
            }
        }
    }
}

/// What is left is brought to its end by one more coordinator.
fn end(world: &mut World) {
    world
        .ranks
        .values_mut()
        .for_each(|rank| rank.veto_next = false);
    world.replace_coordinator();
    world.run();
    assert!(world.recover(), "all were heard, and nothing is settled");
    world.run();
}

fn is_whole(world: &World) -> Result<(), TestCaseError> {
    let held = matches!(world.gang.phase(), Some((_, Phase::Held)));
    prop_assert!(
        held || world.gang.phase().is_none(),
        "{:?}",
        world.gang.phase()
    );
    let living = world.ranks.values().filter(|rank| rank.alive);
    for rank in living.clone().filter(|rank| rank.welcomed) {
        prop_assert_eq!(rank.held, held, "{:?}", rank);
        prop_assert_eq!(rank.epoch, world.gang.epoch(), "{:?}", rank);
    }
    prop_assert!(held || living.clone().all(|rank| rank.welcomed));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whoever_coordinates_next_brings_everybody_to_one_state(
        guests in 1..4usize,
        ranks in 1..7usize,
        acts in prop::collection::vec(act(false), 0..300),
    ) {
        let mut world = World::new(guests, ranks);
        play(&mut world, acts);
        end(&mut world);
        is_whole(&world)?;
        // And it can be switched again: totals are right.
        if world.gang.phase().is_some() {
            let effects = world.gang.rebuild(Interconnect::Native);
            world.apply(effects.expect("held"));
            world.run();
            is_whole(&world)?;
        }
        let epoch = world.gang.next_epoch();
        let effects = world.gang.switch(epoch, explicit("tcp"), MBB);
        world.apply(effects.expect("settled"));
        world.run();
        is_whole(&world)?;
    }

    #[test]
    fn ranks_that_die_meanwhile_keep_nobody_from_it(
        guests in 1..4usize,
        ranks in 1..7usize,
        acts in prop::collection::vec(act(true), 0..300),
    ) {
        let mut world = World::new(guests, ranks);
        play(&mut world, acts);
        end(&mut world);
        is_whole(&world)?;
    }

    #[test]
    fn a_guest_that_is_heard_late_is_not_decided_over(
        ranks in 2..7usize,
        steps in prop::collection::vec(any::<usize>(), 0..200),
        make_first: bool,
        silent in 0..3usize,
        after in prop::collection::vec(any::<usize>(), 0..100),
    ) {
        let mut world = World::new(3, ranks);
        let order = if make_first { MBB } else { BBM };
        let effects = world.gang.switch(Epoch(1), explicit("tcp"), order).expect("accepted");
        world.apply(effects);
        for queue in steps {
            world.step(queue % world.queues());
        }
        world.replace_coordinator();
        world.mute(silent);
        world.run();
        world.recover();
        for queue in after {
            world.step(queue % world.queues());
        }
        world.unmute();
        world.run();
        world.recover();
        world.run();
        is_whole(&world)?;
    }
}

fn start(world: &mut World, order: SwitchOrder) {
    let epoch = world.gang.next_epoch();
    let effects = world.gang.switch(epoch, explicit("tcp"), order);
    world.apply(effects.expect("accepted"));
}

/// Runs until every guest was told what makes `told` true of its memory.
fn run_until(world: &mut World, told: impl Fn(&World) -> bool) {
    for turn in 0..10_000 {
        if told(world) {
            return;
        }
        world.step(turn % world.queues());
    }
    panic!("never so, but in {:?}", world.gang.phase());
}

#[test]
fn a_switch_whose_coordinator_dies_before_anybody_drains_is_undone() {
    for phase in [Phase::Prepare, Phase::WireUp, Phase::Commit] {
        let mut world = World::new(2, 4);
        start(&mut world, MBB);
        run_until(&mut world, |world| {
            world.gang.phase().is_some_and(|(_, now)| now == phase)
        });
        end(&mut world);
        assert!(
            world.outcomes.iter().any(|outcome| matches!(
                outcome,
                Outcome::Aborted {
                    held: false,
                    reason: Reason::CoordinatorLost,
                    ..
                }
            )) || world.memories.iter().all(|memory| memory.round.is_none()),
            "{phase}: {:?}",
            world.outcomes
        );
        assert!(
            world
                .ranks
                .values()
                .all(|it| it.epoch == Epoch(0) && !it.held)
        );
    }
}

#[test]
fn a_switch_whose_coordinator_dies_when_one_guest_drains_goes_on_everywhere() {
    let mut world = World::new(2, 4);
    for (from, to) in [(1, 2), (2, 3), (4, 1), (3, 1)] {
        world.send(ProcId(from), ProcId(to), from);
    }
    start(&mut world, MBB);
    let drains = |world: &World| world.ranks.values().any(|it| it.heard.contains(&"expect"));
    run_until(&mut world, drains);
    let told = |world: &World| {
        let ranks = world.ranks.values();
        ranks.filter(|it| it.heard.contains(&"expect")).count()
    };
    assert!(told(&world) < 4, "one guest is to be ahead");
    end(&mut world);
    assert!(
        world
            .ranks
            .values()
            .all(|it| it.epoch == Epoch(1) && !it.held)
    );
    assert_eq!(world.gang.epoch(), Epoch(1));
    assert_eq!(*world.gang.interconnect(), explicit("tcp"));
}

#[test]
fn a_hold_outlives_its_coordinator_and_is_rebuilt_by_the_next() {
    let mut world = World::new(2, 4);
    start(&mut world, BBM);
    world.run();
    end(&mut world);
    assert!(matches!(world.gang.phase(), Some((Epoch(1), Phase::Held))));
    let effects = world.gang.rebuild(Interconnect::Fallback).expect("held");
    world.apply(effects);
    world.run();
    assert!(
        world
            .ranks
            .values()
            .all(|it| it.epoch == Epoch(1) && !it.held)
    );
}

#[test]
fn nothing_begins_before_the_last_switch_is_settled() {
    let mut world = World::new(2, 2);
    start(&mut world, MBB);
    run_until(&mut world, |world| {
        world.ranks.values().all(|it| it.heard.contains(&"commit"))
    });
    world.replace_coordinator();
    world.run();
    let epoch = world.gang.next_epoch();
    let refused = world.gang.switch(epoch, explicit("tcp"), MBB);
    assert_eq!(refused.unwrap_err(), Refusal::Unsettled);
}

#[test]
fn who_must_be_heard_first_is_named() {
    let mut world = World::new(2, 2);
    start(&mut world, MBB);
    run_until(&mut world, |world| {
        world.ranks.values().all(|it| it.heard.contains(&"commit"))
    });
    world.replace_coordinator();
    world.mute(1);
    world.run();
    let all = [guest_id(0), guest_id(1)];
    let unsettled = world.gang.recover(&all).unwrap_err();
    assert_eq!(unsettled.silent, [guest_id(1)]);
    assert!(unsettled.to_string().contains("g1"), "{unsettled}");
    // It is known to be lost: the other ranks need not wait for it.
    let effects = world.gang.recover(&all[..1]).expect("nobody else");
    world.apply(effects);
    world.run();
    let first = world.ranks.values().find(|rank| rank.guest == 0);
    assert!(first.is_some_and(|rank| !rank.held && rank.epoch == Epoch(0)));
}

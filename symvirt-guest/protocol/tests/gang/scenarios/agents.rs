//! Agents that die and begin anew in the middle of a switch.

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::gang::{Outcome, Phase, Reason};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::{FromRank, SyncSend};
use symvirt_protocol::transport::Interconnect;

use super::{BBM, MBB, run_to, start, switch_through};
use crate::world::{World, guest_id, worker};

fn assert_undone_for_its_agent(world: &World) {
    assert!(
        matches!(
            world.outcomes.last(),
            Some(Outcome::Aborted {
                reason: Reason::AgentLost { .. },
                ..
            })
        ),
        "{:?}",
        world.outcomes
    );
}

#[test]
fn a_restarted_agent_in_mid_round_makes_it_retryable() {
    let mut world = World::new(2, 2);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::WireUp);
    let hello = FromAgent::Hello {
        guest: "g1".into(),
        agent_version: "0".into(),
        memory: Box::default(),
        ranks: Vec::new(),
    };
    let effects = world.gang.hear(&guest_id(1), hello);
    world.apply(effects);
    world.run();
    assert_undone_for_its_agent(&world);
}

#[test]
fn an_agent_restarted_after_the_drain_costs_nothing() {
    let mut world = World::new(2, 4);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::Release);
    world.restart_agent(1);
    world.run();
    assert!(
        matches!(
            world.outcomes.last(),
            Some(Outcome::Released {
                epoch: Epoch(1),
                ..
            })
        ),
        "{:?}",
        world.outcomes
    );
    switch_through(&mut world, 2);
}

/// Its ranks stand still, and do not know whether others have changed over: they are asked again.
/// One of four issues atomics: all wait for all to have drained, and then to be released.
#[test]
fn a_switch_goes_on_though_its_last_word_was_lost_with_an_agent() {
    let phases = [Phase::Drain, Phase::Release];
    let ranks = [3, 4]
        .into_iter()
        .flat_map(|ranks| phases.map(|phase| (ranks, phase)));
    for ((ranks, phase), steps) in ranks.flat_map(|it| (0..6).map(move |steps| (it, steps))) {
        let mut world = World::new(2, ranks);
        start(&mut world, 1, MBB);
        run_to(&mut world, phase);
        // The other guest's ranks change over meanwhile, more or less far.
        for _ in 0..steps {
            world.step(0);
        }
        world.restart_agent(1);
        world.run();
        let last = world.outcomes.last();
        assert!(
            matches!(last, Some(Outcome::Released { .. })),
            "{ranks} {phase} {steps}: {:?}",
            world.outcomes
        );
        let over = |rank: &crate::world::Rank| !rank.held && rank.epoch == Epoch(1);
        assert!(world.ranks.values().all(over), "{ranks} {phase} {steps}");
    }
}

/// Whether before the switch or in the middle of it: the switch is undone, and the next one does
/// without the rank.
#[test]
fn a_rank_whose_farewell_was_lost_with_its_agent_ends_no_operation() {
    for phase in [None, Some(Phase::Prepare), Some(Phase::Commit)] {
        let mut world = World::new(2, 4);
        let gone = ProcId(2);
        if phase.is_none() {
            world.end_unheard(gone);
            world.run();
        }
        start(&mut world, 1, MBB);
        if let Some(phase) = phase {
            run_to(&mut world, phase);
            world.end_unheard(gone);
        }
        world.run();
        let waiting = world.gang.waiting();
        let waiting: Vec<_> = waiting.iter().map(|missing| missing.rank.process).collect();
        assert_eq!((waiting, world.gang.awaits_absent()), (vec![gone], true));
        let effects = world.gang.give_up_absent();
        world.apply(effects);
        world.run();
        assert_undone_for_its_agent(&world);
        start(&mut world, 2, MBB);
        world.run();
        let last = world.outcomes.last();
        assert!(matches!(last, Some(Outcome::Released { .. })), "{last:?}");
    }
}

/// It cannot have left: what happened to it is told.
#[test]
fn a_rank_that_ended_unheard_while_it_was_held_is_dead() {
    let mut world = World::new(2, 4);
    start(&mut world, 1, BBM);
    world.run();
    world.end_unheard(ProcId(2));
    world.run();
    let effects = world.gang.rebuild(Interconnect::Native).expect("held");
    world.apply(effects);
    world.run();
    assert!(world.gang.awaits_absent());
    let effects = world.gang.give_up_absent();
    world.apply(effects);
    world.run();
    let last = world.outcomes.last();
    let Some(Outcome::Failed {
        reason: Reason::Died { rank, .. },
        ..
    }) = last
    else {
        panic!("{last:?}")
    };
    assert_eq!(rank.process, ProcId(2));
}

/// Nothing is decided yet: the ranks that stand still are let go on, whatever they had heard.
#[test]
fn a_switch_is_undone_that_lost_an_agent_before_it_was_decided() {
    for phase in [Phase::Prepare, Phase::WireUp, Phase::Commit] {
        for steps in 0..12 {
            let mut world = World::new(2, 4);
            start(&mut world, 1, MBB);
            run_to(&mut world, phase);
            for step in 0..steps {
                world.step(step % 6);
            }
            world.restart_agent(1);
            world.run();
            assert!(world.gang.phase().is_none());
            assert!(
                world.ranks.values().all(|rank| !rank.held),
                "{phase} {steps}"
            );
        }
    }
}

/// The next agent is there, and ranks have yet to find it: what they were to answer is not waited for.
#[test]
fn a_switch_that_begins_before_ranks_have_found_their_next_agent_is_undone() {
    let mut world = World::new(2, 4);
    world.restart_agent(1);
    // Its hello.
    world.step(3);
    start(&mut world, 1, MBB);
    world.run();
    assert_undone_for_its_agent(&world);
    start(&mut world, 2, MBB);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Released { .. })
    ));
}

/// What a held rank has said may be lost with its agent, and the epoch that it names when it is back
/// does not tell: such a hold was given up, with the other ranks held for good.
#[test]
fn a_hold_goes_on_though_the_words_of_held_ranks_were_lost_with_their_agent() {
    for phase in [Phase::Drain, Phase::Release] {
        let mut world = World::new(2, 4);
        start(&mut world, 1, BBM);
        run_to(&mut world, phase);
        let request = match phase {
            Phase::Drain => "expect",
            _ => "release",
        };
        let told = |world: &World| {
            let mut ranks = world.ranks.values().filter(|rank| rank.guest == 1);
            ranks.all(|rank| rank.heard.contains(&request))
        };
        // To the agent and its ranks, and not back.
        for _ in 0..100 {
            world.step(1);
            world.step(5);
        }
        assert!(told(&world), "{phase}");
        world.restart_agent(1);
        world.run();
        let last = world.outcomes.last();
        assert!(
            matches!(last, Some(Outcome::Held { .. })),
            "{phase}: {:?}",
            world.outcomes
        );
        assert!(world.ranks.values().all(|rank| rank.held));
    }
}

#[test]
fn a_gang_is_opened_though_an_agent_restarted_during_the_hold() {
    let mut world = World::new(2, 4);
    start(&mut world, 1, BBM);
    world.run();
    world.restart_agent(0);
    world.run();
    let effects = world.gang.rebuild(Interconnect::Native).expect("held");
    world.apply(effects);
    world.run();
    assert!(
        matches!(world.outcomes.last(), Some(Outcome::Opened { stalls, .. }) if stalls.len() == 4)
    );
    assert!(world.ranks.values().all(|rank| !rank.held));
}

/// It would wait for ever for the end of a send that was matched long ago.
#[test]
fn a_sender_whose_agent_died_is_told_again_what_was_matched() {
    let mut world = World::new(2, 4);
    let in_guest = |guest| {
        let mut ranks = world.ranks.iter();
        let found = ranks.find(|(_, rank)| rank.guest == guest);
        *found.expect("both guests have ranks").0
    };
    let (receiver, sender) = (in_guest(0), in_guest(1));
    let sync = SyncSend {
        sender,
        id: 5,
        worker: worker(receiver),
        tag: 7,
    };
    let matched = FromRank::Matched { syncs: vec![sync] };
    let said = FromAgent::Ranks(vec![(receiver, matched)]);
    let effects = world.gang.hear(&guest_id(0), said);
    world.apply(effects);
    world.restart_agent(1);
    world.run();
    assert!(world.ranks[&sender].heard.contains(&"matched"));
}

//! The named promises of the coordinator.

use symvirt_protocol::agent::{FromAgent, Recipient, ToAgent};
use symvirt_protocol::gang::{Effect, Outcome, Phase, Reason, Refusal};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::{FromRank, Load, SwitchOrder, SyncSend, ToRank, WorkerCount};
use symvirt_protocol::transport::Interconnect;

use crate::world::{World, explicit, guest_id, worker};

const MBB: SwitchOrder = SwitchOrder::MakeBeforeBreak;
const BBM: SwitchOrder = SwitchOrder::BreakBeforeMake;

fn start(world: &mut World, epoch: u64, order: SwitchOrder) {
    let effects = world
        .gang
        .switch(Epoch(epoch), explicit("tcp"), order)
        .expect("accepted");
    world.apply(effects);
}

/// Runs until the gang is in `phase`.
fn run_to(world: &mut World, phase: Phase) {
    for turn in 0..10_000 {
        if world.gang.phase().is_some_and(|(_, now)| now == phase) {
            return;
        }
        world.step(turn % world.queues());
    }
    panic!("never in {phase}, but in {:?}", world.gang.phase());
}

#[test]
fn make_before_break_takes_every_rank_to_the_new_epoch() {
    let mut world = World::new(2, 4);
    start(&mut world, 1, MBB);
    world.run();
    let [
        Outcome::Voted { ranks: 4, .. },
        Outcome::Committed { stalls, .. },
        last,
    ] = &world.outcomes[..]
    else {
        panic!("{:?}", world.outcomes)
    };
    assert_eq!(stalls.len(), 4);
    assert_eq!(
        *last,
        Outcome::Released {
            epoch: Epoch(1),
            slowest_us: 7
        }
    );
    assert!(
        world
            .ranks
            .values()
            .all(|rank| rank.epoch == Epoch(1) && !rank.held)
    );
    assert_eq!((world.gang.epoch(), world.gang.phase()), (Epoch(1), None));
}

#[test]
fn atomics_keep_every_gate_closed_until_all_have_drained() {
    let mut world = World::new(2, 3);
    let process = *world.ranks.keys().next().expect("there are ranks");
    world.ranks.get_mut(&process).expect("just found").atomics = true;
    start(&mut world, 1, MBB);
    world.run();
    let [
        Outcome::Voted { .. },
        Outcome::Committed { stalls, .. },
        Outcome::Released { .. },
    ] = &world.outcomes[..]
    else {
        panic!("{:?}", world.outcomes)
    };
    let stall = stalls.iter().find(|stall| stall.rank.process == process);
    assert_eq!(
        stall.map(|stall| stall.stall.total_us),
        Some(99),
        "the stall is the one that was known after the barrier"
    );
}

/// A rank whose spool has room for so much, of all that the others say that they are sending.
fn fill(world: &mut World, process: ProcId, load: Load, overflows: bool) {
    let rank = world.ranks.get_mut(&process).expect("spawned");
    (rank.load, rank.overflows) = (load, overflows);
}

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

fn weighings(world: &World) -> usize {
    let heard = world.ranks.values().flat_map(|rank| &rank.heard);
    heard.filter(|what| **what == "weigh").count()
}

#[test]
fn a_drain_that_fits_for_sure_is_not_weighed() {
    let mut world = World::new(2, 3);
    for process in 1..=3 {
        let load = Load {
            sending: 1 << 20,
            waiting: 1 << 20,
            room: 1 << 30,
        };
        fill(&mut world, ProcId(process), load, true);
    }
    start(&mut world, 1, MBB);
    world.run();
    assert_eq!(weighings(&world), 0);
    assert_eq!(world.gang.epoch(), Epoch(1));
}

#[test]
fn what_all_are_sending_counts_against_the_room_of_each() {
    for order in [MBB, BBM] {
        let mut world = World::new(2, 3);
        for process in 1..=3 {
            let load = Load {
                sending: 400 << 20,
                waiting: 0,
                room: 1 << 30,
            };
            fill(&mut world, ProcId(process), load, false);
        }
        start(&mut world, 1, order);
        world.run();
        assert_eq!(weighings(&world), 3);
        let end = world.outcomes.last().expect("an end");
        assert!(
            matches!(end, Outcome::Released { .. } | Outcome::Held { .. }),
            "{end:?}"
        );
    }
}

#[test]
fn a_full_spool_undoes_the_switch_on_all_and_the_next_one_succeeds() {
    for order in [MBB, BBM] {
        let mut world = World::new(2, 4);
        fill(&mut world, ProcId(2), Load::default(), true);
        world.send(ProcId(1), ProcId(2), 5);
        start(&mut world, 1, order);
        world.run();
        let Some(Outcome::Aborted {
            held: false,
            reason: Reason::Veto { rank, reason },
            ..
        }) = world.outcomes.last()
        else {
            panic!("{:?}", world.outcomes)
        };
        assert_eq!(rank.process, ProcId(2));
        assert_eq!(reason, "the spool is too small");
        let stays = |rank: &crate::world::Rank| rank.epoch == Epoch(0) && !rank.held;
        assert!(world.ranks.values().all(stays));
        // The next one weighs again, and expects what the last one did.
        fill(&mut world, ProcId(2), Load::default(), false);
        start(&mut world, 2, MBB);
        world.run();
        assert_eq!(weighings(&world), 8);
        assert_eq!(world.gang.epoch(), Epoch(2));
    }
}

#[test]
fn a_rank_that_dies_while_the_drain_is_weighed_undoes_the_switch() {
    let mut world = World::new(2, 3);
    fill(&mut world, ProcId(1), Load::default(), false);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::Weigh);
    world.kill(ProcId(2));
    world.run();
    assert!(
        matches!(world.outcomes.last(), Some(Outcome::Failed { .. })),
        "{:?}",
        world.outcomes
    );
    let left = world.ranks.values().filter(|rank| rank.alive);
    for rank in left {
        assert_eq!((rank.epoch, rank.held), (Epoch(0), false));
    }
}

#[test]
fn a_hold_waits_for_the_rebuild_and_then_opens() {
    let mut world = World::new(2, 3);
    start(&mut world, 1, BBM);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Held {
            epoch: Epoch(1),
            ..
        })
    ));
    assert!(world.ranks.values().all(|rank| rank.held));
    let effects = world.gang.rebuild(Interconnect::Native).expect("held");
    world.apply(effects);
    world.run();
    assert!(
        matches!(world.outcomes.last(), Some(Outcome::Opened { stalls, .. }) if stalls.len() == 3)
    );
    assert!(
        world
            .ranks
            .values()
            .all(|rank| rank.epoch == Epoch(1) && !rank.held)
    );
}

#[test]
fn a_veto_abandons_the_round_on_all_and_the_next_one_succeeds() {
    let mut world = World::new(2, 4);
    world.ranks.get_mut(&ProcId(3)).expect("spawned").veto_next = true;
    start(&mut world, 1, MBB);
    world.run();
    let Some(Outcome::Aborted {
        held: false,
        reason: Reason::Veto { rank, reason },
        ..
    }) = world.outcomes.last()
    else {
        panic!("{:?}", world.outcomes)
    };
    assert_eq!((rank.process, reason.as_str()), (ProcId(3), "no device"));
    assert!(world.ranks.values().all(|rank| rank.epoch == Epoch(0)));
    start(&mut world, 2, MBB);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Released {
            epoch: Epoch(2),
            ..
        })
    ));
}

#[test]
fn a_vetoed_rebuild_leaves_the_gang_held_and_can_be_tried_again() {
    let mut world = World::new(2, 2);
    start(&mut world, 1, BBM);
    world.run();
    world.ranks.get_mut(&ProcId(1)).expect("spawned").veto_next = true;
    let effects = world.gang.rebuild(Interconnect::Native).expect("held");
    world.apply(effects);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Aborted { held: true, .. })
    ));
    assert!(world.ranks.values().all(|rank| rank.held));
    let effects = world
        .gang
        .rebuild(Interconnect::Fallback)
        .expect("held again");
    world.apply(effects);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Opened { .. })
    ));
    assert_eq!(world.gang.interconnect(), &Interconnect::Fallback);
}

#[test]
fn messages_of_departed_ranks_are_announced_until_a_switch_commits() {
    let mut world = World::new(2, 3);
    world.send(ProcId(1), ProcId(2), 5);
    world.send(ProcId(3), ProcId(2), 2);
    world.leave(ProcId(1));
    world.run();
    // An abandoned round keeps them.
    world.ranks.get_mut(&ProcId(3)).expect("spawned").veto_next = true;
    start(&mut world, 1, MBB);
    world.run();
    start(&mut world, 2, MBB);
    run_to(&mut world, Phase::Drain);
    world.run();
    assert_eq!(world.terminal_outcomes(), 2);
    // The next switch expects nothing of them: the simulated rank checks its totals.
    start(&mut world, 3, MBB);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Released {
            epoch: Epoch(3),
            ..
        })
    ));
}

#[test]
fn totals_are_exact_over_members_and_departed() {
    let mut world = World::new(1, 3);
    world.send(ProcId(1), ProcId(2), 5);
    world.send(ProcId(3), ProcId(2), 2);
    world.leave(ProcId(1));
    world.run();
    start(&mut world, 1, BBM);
    let mut seen = None;
    for turn in 0..1000 {
        world.step(turn % world.queues());
        let Some((_, Phase::Commit)) = world.gang.phase() else {
            continue;
        };
        for process in [ProcId(2), ProcId(3)] {
            let sent = if process == ProcId(3) { 2 } else { 0 };
            let counters = FromRank::Counters {
                epoch: Epoch(1),
                sent: vec![WorkerCount {
                    worker: worker(ProcId(2)),
                    count: sent,
                }],
                syncs: Vec::new(),
                late: Vec::new(),
                atomics: false,
                load: Load {
                    room: u64::MAX,
                    ..Load::default()
                },
            };
            let effects = world
                .gang
                .hear(&guest_id(0), FromAgent::Ranks(vec![(process, counters)]));
            for effect in &effects {
                if let Effect::Send {
                    message: ToAgent::Ranks(messages),
                    ..
                } = effect
                {
                    seen = Some(messages.clone());
                }
            }
        }
        break;
    }
    let messages = seen.expect("an Expect");
    let symvirt_protocol::rank::ToRank::Expect { totals, .. } = &messages[0].1 else {
        panic!("{messages:?}")
    };
    assert_eq!(
        totals,
        &[WorkerCount {
            worker: worker(ProcId(2)),
            count: 7
        }]
    );
}

#[test]
fn a_rank_that_leaves_before_expect_makes_the_round_retryable() {
    for phase in [Phase::Prepare, Phase::WireUp] {
        let mut world = World::new(2, 4);
        start(&mut world, 1, MBB);
        run_to(&mut world, phase);
        world.leave(ProcId(2));
        world.run();
        assert_eq!(world.terminal_outcomes(), 1, "{:?}", world.outcomes);
        if let Some(Outcome::Aborted { reason, .. }) = world.outcomes.last() {
            assert!(matches!(reason, Reason::Left { rank } if rank.process == ProcId(2)));
        }
        assert_eq!(world.gang.phase(), None);
        start(&mut world, 2, MBB);
        world.run();
        assert!(matches!(
            world.outcomes.last(),
            Some(Outcome::Released {
                epoch: Epoch(2),
                ..
            })
        ));
    }
}

#[test]
fn a_rank_that_dies_before_expect_fails_the_switch_and_frees_the_others() {
    let mut world = World::new(2, 4);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::Prepare);
    world.kill(ProcId(4));
    world.run();
    let Some(Outcome::Failed {
        reason: Reason::Died { rank, phase },
        ..
    }) = world.outcomes.last()
    else {
        panic!("{:?}", world.outcomes)
    };
    assert_eq!((rank.process, *phase), (ProcId(4), Phase::Prepare));
    assert_eq!(rank.to_string(), "rank 3 (app, pid 1004, guest g1)");
    assert!(
        world
            .ranks
            .values()
            .filter(|rank| rank.alive)
            .all(|rank| !rank.held)
    );
    assert_eq!(world.gang.phase(), None);
}

#[test]
fn a_rank_that_dies_in_the_drain_fails_the_switch_at_once_and_the_rest_goes_on() {
    let mut world = World::new(2, 4);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::Drain);
    let gone = FromAgent::Gone {
        process: ProcId(1),
        pid: 1001,
    };
    let effects = world.gang.hear(&guest_id(0), gone);
    assert!(
        matches!(&effects[..], [Effect::Outcome(Outcome::Failed { .. })]),
        "{effects:?}"
    );
    world.apply(effects);
    world.run();
    assert_eq!(world.terminal_outcomes(), 1);
    assert_eq!(world.gang.phase(), None, "the survivors drained");
}

#[test]
fn a_rank_that_joins_in_mid_round_waits_for_its_end() {
    let mut world = World::new(2, 2);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::WireUp);
    let late = world.spawn(1);
    world.run();
    assert_eq!(world.ranks[&late].heard, ["welcome"]);
    assert_eq!(world.ranks[&late].epoch, Epoch(1));
    start(&mut world, 2, MBB);
    world.run();
    assert_eq!(world.ranks[&late].epoch, Epoch(2));
}

#[test]
fn an_empty_gang_switches_at_once() {
    let mut world = World::new(2, 0);
    start(&mut world, 1, MBB);
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Released {
            epoch: Epoch(1),
            ..
        })
    ));
    start(&mut world, 2, BBM);
    assert!(matches!(world.outcomes.last(), Some(Outcome::Held { .. })));
    let effects = world.gang.rebuild(Interconnect::Native).expect("held");
    world.apply(effects);
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Opened { .. })
    ));
}

#[test]
fn commands_are_refused_without_effect_where_they_make_no_sense() {
    let mut world = World::new(1, 2);
    assert_eq!(world.gang.abort(), Err(Refusal::Idle));
    assert_eq!(
        world.gang.rebuild(Interconnect::Native),
        Err(Refusal::NotHeld)
    );
    start(&mut world, 5, MBB);
    let again = world.gang.switch(Epoch(6), Interconnect::Native, MBB);
    assert_eq!(
        again,
        Err(Refusal::Busy {
            epoch: Epoch(5),
            phase: Phase::Prepare
        })
    );
    run_to(&mut world, Phase::Drain);
    assert_eq!(
        world.gang.abort(),
        Err(Refusal::PastAbort {
            epoch: Epoch(5),
            phase: Phase::Drain
        })
    );
    world.run();
    let stale = world.gang.switch(Epoch(5), Interconnect::Native, MBB);
    assert_eq!(
        stale,
        Err(Refusal::Stale {
            asked: Epoch(5),
            last: Epoch(5)
        })
    );
}

#[test]
fn a_timeout_names_the_ranks_that_are_missing() {
    let mut world = World::new(2, 2);
    start(&mut world, 1, MBB);
    let effects = world.gang.time_out();
    world.apply(effects);
    world.run();
    let Some(Outcome::Aborted { reason, .. }) = world.outcomes.last() else {
        panic!("{:?}", world.outcomes)
    };
    assert_eq!(
        reason.to_string(),
        "no answer during prepare from rank 0 (app, pid 1001, guest g0), \
         rank 1 (app, pid 1002, guest g1)"
    );
}

#[test]
fn who_does_not_answer_is_named_with_where_it_stands() {
    let mut world = World::new(2, 2);
    start(&mut world, 1, MBB);
    let stands = |epoch, at: &str| {
        let at = at.to_owned();
        let message = FromRank::Stands {
            epoch: Epoch(epoch),
            at,
        };
        FromAgent::Ranks(vec![(ProcId(1), message)])
    };
    for (epoch, at) in [
        (1, "first"),
        (1, "in a system call"),
        (7, "of another switch"),
    ] {
        assert_eq!(world.gang.hear(&guest_id(0), stands(epoch, at)), []);
    }
    // Another guest does not speak for it.
    world.gang.hear(&guest_id(1), stands(1, "forged"));
    let effects = world.gang.time_out();
    world.apply(effects);
    // The abort is another phase: what was said before does not hold any more.
    assert!(
        world
            .gang
            .waiting()
            .iter()
            .all(|missing| missing.at.is_none())
    );
    world.run();
    let Some(Outcome::Aborted { reason, .. }) = world.outcomes.last() else {
        panic!("{:?}", world.outcomes)
    };
    assert_eq!(
        reason.to_string(),
        "no answer during prepare from rank 0 (app, pid 1001, guest g0), which stands: in a \
         system call, rank 1 (app, pid 1002, guest g1)"
    );
}

#[test]
fn a_rank_that_answers_no_abort_fails_the_switch_on_the_second_timeout() {
    let mut world = World::new(1, 2);
    start(&mut world, 1, MBB);
    let effects = world.gang.time_out();
    world.apply(effects);
    assert_eq!(world.terminal_outcomes(), 0);
    let effects = world.gang.time_out();
    world.apply(effects);
    let Some(Outcome::Failed {
        reason: Reason::TimedOut { phase, waiting },
        ..
    }) = world.outcomes.last()
    else {
        panic!("{:?}", world.outcomes)
    };
    assert_eq!((*phase, waiting.len()), (Phase::Abort, 2));
    world.run();
    assert_eq!((world.terminal_outcomes(), world.gang.phase()), (1, None));
}

#[test]
fn a_guest_speaks_for_its_own_ranks_only() {
    let mut world = World::new(2, 2);
    start(&mut world, 1, MBB);
    run_to(&mut world, Phase::Prepare);
    let forged = vec![
        (
            ProcId(1),
            FromRank::Veto {
                epoch: Epoch(1),
                reason: "forged".into(),
            },
        ),
        (ProcId(1), FromRank::Leave { sent: Vec::new() }),
    ];
    assert_eq!(world.gang.hear(&guest_id(1), FromAgent::Ranks(forged)), []);
    let gone = FromAgent::Gone {
        process: ProcId(1),
        pid: 1001,
    };
    assert_eq!(world.gang.hear(&guest_id(1), gone), []);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Released { .. })
    ));
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
fn messages_to_guests_do_not_grow_with_ranks() {
    let messages = |ranks| {
        let mut world = World::new(2, ranks);
        world.messages_to_guests = 0;
        start(&mut world, 1, MBB);
        world.run();
        world.messages_to_guests
    };
    assert_eq!(messages(2), messages(32));
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
    start(&mut world, 2, MBB);
    world.run();
    assert!(matches!(
        world.outcomes.last(),
        Some(Outcome::Released {
            epoch: Epoch(2),
            ..
        })
    ));
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

#[test]
fn a_sender_is_told_of_all_its_matched_messages_at_once() {
    let mut world = World::new(1, 3);
    let sync = |sender, id| SyncSend {
        sender: ProcId(sender),
        id,
        worker: worker(ProcId(2)),
        tag: 7,
    };
    let syncs = (0..500).flat_map(|id| [sync(1, id), sync(3, id)]).collect();
    let matched = FromAgent::Ranks(vec![(ProcId(2), FromRank::Matched { syncs })]);
    let effects = world.gang.hear(&guest_id(0), matched);
    let all: Vec<u64> = (0..500).collect();
    let told = |process| Effect::Send {
        guest: guest_id(0),
        message: ToAgent::Ranks(vec![(
            Recipient::One(ProcId(process)),
            ToRank::Matched { ids: all.clone() },
        )]),
    };
    assert_eq!(effects, [told(1), told(3)]);
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

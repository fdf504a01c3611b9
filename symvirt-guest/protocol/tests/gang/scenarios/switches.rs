//! A switch from its beginning to its end, or back.

use symvirt_protocol::agent::{FromAgent, Recipient, ToAgent};
use symvirt_protocol::gang::{Effect, Outcome, Phase, Reason, Refusal};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::{FromRank, Load, SyncSend, ToRank, WorkerCount};
use symvirt_protocol::transport::Interconnect;

use super::{BBM, MBB, run_to, start, switch_through};
use crate::world::{World, guest_id, worker};

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
    switch_through(&mut world, 2);
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
    switch_through(&mut world, 3);
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

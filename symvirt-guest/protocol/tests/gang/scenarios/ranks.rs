//! Ranks that come, go, die, or do not answer.

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::gang::{Effect, Outcome, Phase, Reason};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::FromRank;

use super::{MBB, run_to, start, switch_through};
use crate::world::{World, guest_id};

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
        switch_through(&mut world, 2);
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

//! Drains that might not fit.

use symvirt_protocol::gang::{Outcome, Phase, Reason};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::Load;

use super::{BBM, MBB, run_to, start};
use crate::world::World;

/// A rank whose spool has room for so much, of all that the others say that they are sending.
fn fill(world: &mut World, process: ProcId, load: Load, overflows: bool) {
    let rank = world.ranks.get_mut(&process).expect("spawned");
    (rank.load, rank.overflows) = (load, overflows);
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

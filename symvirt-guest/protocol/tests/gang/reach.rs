//! How objects are reached: who is told what, and how it grows with the gang.

use std::collections::BTreeSet;

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::gang::{Effect, Gang, Phase};
use symvirt_protocol::ids::{Epoch, ProcId, WorkerId};
use symvirt_protocol::rank::{Blob, FromRank, Join, SwitchOrder};
use symvirt_protocol::transport::Interconnect;

use crate::world::{Volume, World, explicit, guest_id, worker};

const MBB: SwitchOrder = SwitchOrder::MakeBeforeBreak;

fn switch(world: &mut World) {
    let epoch = world.gang.next_epoch();
    let effects = world.gang.switch(epoch, explicit("tcp"), MBB);
    world.apply(effects.expect("accepted"));
    world.run();
    assert_eq!(world.gang.epoch(), epoch, "{:?}", world.outcomes);
}

/// A ring on guests of four ranks each: every rank greets and sends to `neighbours` on each side.
fn ring(ranks: usize, neighbours: u64) -> World {
    let mut world = World::new(ranks / 4, ranks);
    let around = |process: u64, step: u64| ProcId((process - 1 + step) % ranks as u64 + 1);
    for process in 1..=ranks as u64 {
        let peers: BTreeSet<ProcId> = (1..=neighbours)
            .flat_map(|step| [around(process, step), around(process, ranks as u64 - step)])
            .collect();
        for &peer in &peers {
            world.send(ProcId(process), peer, 5);
        }
        let rank = world.ranks.get_mut(&ProcId(process)).expect("spawned");
        rank.greets = peers;
    }
    world
}

/// What one switch sends: to and from guests, to and from ranks.
fn volumes(mut world: World) -> [Volume; 2] {
    (world.guests_volume, world.ranks_volume) = Default::default();
    switch(&mut world);
    [world.guests_volume, world.ranks_volume]
}

#[test]
fn a_switch_of_twice_the_ranks_sends_twice_the_bytes() {
    let (few, many) = (volumes(ring(64, 2)), volumes(ring(128, 2)));
    for (few, many) in few.into_iter().zip(many) {
        assert_eq!(many.frames, 2 * few.frames);
        // Identities of more ranks take a byte more here and there; a table for all would quadruple.
        let growth = many.bytes as f64 / few.bytes as f64;
        assert!((1.9..2.1).contains(&growth), "{few:?} became {many:?}");
    }
}

#[test]
fn a_guest_is_told_of_a_common_peer_once() {
    // Four ranks of one guest that all greet the same one of the other.
    let mut world = World::new(2, 8);
    for process in (1..=8).step_by(2) {
        let rank = world.ranks.get_mut(&ProcId(process)).expect("spawned");
        rank.greets = BTreeSet::from([ProcId(2)]);
    }
    let epoch = world.gang.next_epoch();
    let effects = world.gang.switch(epoch, explicit("tcp"), MBB);
    world.apply(effects.expect("accepted"));
    let before = world.ranks_volume;
    world.run();
    assert_eq!(world.gang.epoch(), epoch);
    let told = world
        .told_guests
        .iter()
        .filter(|(_, object)| *object == worker(ProcId(2)));
    assert_eq!(told.count(), 1);
    assert!(world.ranks_volume.frames > before.frames);
}

#[derive(PartialEq, Eq, Debug, Default)]
struct Answer {
    found: Vec<ProcId>,
    gone: Vec<ProcId>,
    unknown: Vec<ProcId>,
    later: Vec<ProcId>,
}

fn ask(gang: &mut Gang, epoch: u64, of: &[u64]) -> Answer {
    let objects = of.iter().map(|&process| worker(ProcId(process))).collect();
    let epoch = Epoch(epoch);
    let effects = gang.hear(&guest_id(0), FromAgent::Ask { epoch, objects });
    let [
        Effect::Send {
            message:
                ToAgent::Found {
                    epoch: of,
                    blobs,
                    gone,
                    unknown,
                    later,
                },
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*of, epoch);
    let processes = |objects: &[WorkerId]| objects.iter().map(|object| object.process).collect();
    let found: Vec<WorkerId> = blobs.iter().map(|blob| blob.object).collect();
    Answer {
        found: processes(&found),
        gone: processes(gone),
        unknown: processes(unknown),
        later: processes(later),
    }
}

#[test]
fn who_asks_later_is_told_of_members_and_of_who_has_left() {
    let mut world = World::new(1, 3);
    switch(&mut world);
    world.leave(ProcId(2));
    world.run();
    let answer = ask(&mut world.gang, 1, &[1, 2, 3, 99]);
    let of = |process: u64| vec![ProcId(process)];
    let expected = Answer {
        found: vec![ProcId(1), ProcId(3)],
        gone: of(2),
        unknown: of(99),
        later: Vec::new(),
    };
    assert_eq!(answer, expected);
    // Of an epoch that is over nothing is known any more.
    let over = ask(&mut world.gang, 0, &[1]);
    assert_eq!((over.found, over.unknown), (Vec::new(), of(1)));
}

#[test]
fn who_is_ahead_is_told_of_the_coming_epoch() {
    let mut world = World::new(2, 2);
    let effects = world.gang.switch(Epoch(1), explicit("tcp"), MBB);
    world.apply(effects.expect("accepted"));
    // The ranks of guest 0 go through the switch; those of guest 1 have yet to hear of the totals.
    let mut seen_ahead = false;
    for turn in 0..10_000 {
        let is_draining = world.gang.phase() == Some((Epoch(1), Phase::Drain));
        // The last of the queues is that to the ranks of guest 1.
        let queues = world.queues() - usize::from(is_draining);
        world.step(turn % queues);
        if world.ranks[&ProcId(1)].epoch == Epoch(1) && world.gang.epoch() == Epoch(0) {
            seen_ahead = true;
            assert_eq!(ask(&mut world.gang, 1, &[2]).found, [ProcId(2)]);
        }
    }
    assert!(seen_ahead);
}

#[test]
fn a_coordinator_that_was_away_learns_from_the_agents_how_ranks_are_reached() {
    let mut gang = Gang::resume(Epoch(3), Interconnect::Native);
    let join = |process: u64| Join {
        process: ProcId(process),
        pid: 1,
        program: "app".into(),
        mpi_rank: None,
        ucx_version: "1".into(),
        epoch: Epoch(3),
        blobs: vec![Blob {
            object: worker(ProcId(process)),
            bytes: vec![1; 8],
        }],
    };
    let hello = |guest: usize, ranks: Vec<Join>| FromAgent::Hello {
        guest: format!("g{guest}"),
        agent_version: "0".into(),
        ranks,
        memory: Box::default(),
    };
    gang.hear(&guest_id(0), hello(0, vec![join(1)]));
    // The other guest has not come yet: it is not gone.
    let early = ask(&mut gang, 3, &[1, 2]);
    assert_eq!(
        (early.found, early.later),
        (vec![ProcId(1)], vec![ProcId(2)])
    );
    // Its agent has begun anew, and its rank joins again.
    gang.hear(&guest_id(1), hello(1, Vec::new()));
    let again = FromAgent::Ranks(vec![(ProcId(2), FromRank::Join(join(2)))]);
    gang.hear(&guest_id(1), again);
    let all = [guest_id(0), guest_id(1)];
    gang.recover(&all).expect("all were heard");
    let found = ask(&mut gang, 3, &[1, 2]).found;
    assert_eq!(found, [ProcId(1), ProcId(2)]);
}

#[test]
fn whoever_coordinates_next_can_tell_how_every_rank_is_reached_whatever_the_last_had_told() {
    // One more step of the switch each time, until there is none: then it is over.
    for steps in 0.. {
        let mut world = ring(8, 1);
        let effects = world.gang.switch(Epoch(1), explicit("tcp"), MBB);
        world.apply(effects.expect("accepted"));
        let mut queues = (0..world.queues()).cycle().take(steps);
        let moves = queues.by_ref().filter(|queue| world.step(*queue)).count();
        let is_over = moves > 0 && world.gang.phase().is_none();
        world.replace_coordinator();
        world.run();
        assert!(world.recover(), "all were heard");
        world.run();
        let epoch = world.gang.epoch();
        let all: Vec<u64> = (1..=8).collect();
        if epoch == Epoch(1) {
            let expected: Vec<ProcId> = all.iter().map(|it| ProcId(*it)).collect();
            assert_eq!(ask(&mut world.gang, 1, &all).found, expected);
        }
        if is_over {
            assert_eq!(epoch, Epoch(1));
            return;
        }
    }
}

//! Any order of events ends well: one terminal outcome for each accepted command, and nothing is
//! sent before it was earned (checked inside the world at every step).

use proptest::prelude::*;
use symvirt_protocol::ids::ProcId;
use symvirt_protocol::rank::SwitchOrder;
use symvirt_protocol::transport::Interconnect;

use crate::world::{World, explicit};

#[derive(Clone, Debug)]
enum Act {
    Step(usize),
    Send(u64, u64),
    Leave(u64),
    Kill(u64),
    Veto(u64),
    Fill(u64, bool),
    Spawn(usize),
    Switch(bool),
    Rebuild,
    Abort,
    TimeOut,
    RestartAgent(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        60 => any::<usize>().prop_map(Act::Step),
        8 => (1..9u64, 1..9u64).prop_map(|(from, to)| Act::Send(from, to)),
        1 => (1..9u64).prop_map(Act::Leave),
        1 => (1..9u64).prop_map(Act::Kill),
        1 => (1..9u64).prop_map(Act::Veto),
        3 => (1..9u64, any::<bool>()).prop_map(|(process, beyond)| Act::Fill(process, beyond)),
        2 => any::<usize>().prop_map(Act::Spawn),
        6 => any::<bool>().prop_map(Act::Switch),
        3 => Just(Act::Rebuild),
        1 => Just(Act::Abort),
        1 => Just(Act::TimeOut),
        1 => any::<usize>().prop_map(Act::RestartAgent),
    ]
}

fn order(make_first: bool) -> SwitchOrder {
    if make_first {
        SwitchOrder::MakeBeforeBreak
    } else {
        SwitchOrder::BreakBeforeMake
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_command_has_one_terminal_outcome(
        guests in 1..4usize,
        ranks in 0..7usize,
        acts in prop::collection::vec(act(), 0..250),
    ) {
        let mut world = World::new(guests, ranks);
        let mut accepted = 0;
        let mut restarted = false;
        for act in acts {
            match act {
                Act::Step(queue) => { world.step(queue % (3 * guests)); }
                Act::Send(from, to) => world.send(ProcId(from), ProcId(to), 1),
                Act::Leave(process) => world.leave(ProcId(process)),
                Act::Kill(process) => world.kill(ProcId(process)),
                Act::Veto(process) => {
                    if let Some(rank) = world.ranks.get_mut(&ProcId(process)) {
                        rank.veto_next = true;
                    }
                }
                Act::Fill(process, beyond) => {
                    if let Some(rank) = world.ranks.get_mut(&ProcId(process)) {
                        // The same act again empties the spool.
                        rank.load.room = !rank.load.room;
                        rank.overflows = rank.load.room == 0 && beyond;
                    }
                }
                Act::Spawn(guest) => { world.spawn(guest % guests); }
                Act::Switch(make_first) => {
                    let epoch = world.gang.next_epoch();
                    if let Ok(effects) = world.gang.switch(epoch, explicit("tcp"), order(make_first)) {
                        accepted += 1;
                        world.apply(effects);
                    }
                }
                Act::Rebuild => {
                    if let Ok(effects) = world.gang.rebuild(Interconnect::Native) {
                        accepted += 1;
                        world.apply(effects);
                    }
                }
                Act::Abort => {
                    if let Ok(effects) = world.gang.abort() {
                        world.apply(effects);
                    }
                }
                Act::TimeOut => {
                    let effects = world.gang.time_out();
                    world.apply(effects);
                }
                Act::RestartAgent(guest) => {
                    restarted = true;
                    world.restart_agent(guest % guests);
                }
            }
        }
        world.run();
        if restarted {
            // Who is missing was lost with an agent's memory: patience ends it. A rank that missed
            // the decision keeps the round from ending, but not the outcome from coming.
            for _ in 0..3 {
                let effects = world.gang.time_out();
                world.apply(effects);
                world.run();
            }
            prop_assert_eq!(world.terminal_outcomes(), accepted, "{:?}", world.outcomes);
            return Ok(());
        }
        prop_assert_eq!(world.terminal_outcomes(), accepted, "{:?}", world.outcomes);
        if let Some((_, phase)) = world.gang.phase() {
            prop_assert_eq!(phase, symvirt_protocol::gang::Phase::Held);
        } else {
            prop_assert_eq!(world.gang.parked(), 0);
            let members = world.ranks.values().filter(|rank| rank.alive && rank.welcomed);
            for rank in members {
                prop_assert!(!rank.held);
                prop_assert_eq!(rank.epoch, world.gang.epoch());
            }
        }
    }
}

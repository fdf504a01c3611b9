//! The named promises of the coordinator.

mod agents;
mod ranks;
mod switches;
mod weighing;

use symvirt_protocol::gang::Phase;
use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::SwitchOrder;

use crate::world::{World, explicit};

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

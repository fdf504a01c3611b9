//! The named promises of the coordinator.

mod agents;
mod ranks;
mod switches;
mod weighing;

use symvirt_protocol::gang::{Outcome, Phase};
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

/// A switch from beginning to end, which nothing hinders.
fn switch_through(world: &mut World, epoch: u64) {
    start(world, epoch, MBB);
    world.run();
    let last = world.outcomes.last();
    assert!(
        matches!(last, Some(Outcome::Released { epoch: of, .. }) if *of == Epoch(epoch)),
        "{last:?}"
    );
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

//! A host that carries out calls in the simulated world.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::operation::effects::{
    CopyStatus, Crossing, Host, HostCall, HostError, HostReply,
};

use super::faults::Verdict;
use super::postcopy;
use super::world::{Destination, Job, Source, Vm, World};

pub struct SimulatedHost {
    name: HostName,
    world: Arc<Mutex<World>>,
    /// The daemon that asks.
    incarnation: usize,
}

impl SimulatedHost {
    pub fn new(name: HostName, world: Arc<Mutex<World>>) -> Self {
        let incarnation = world.lock().unwrap().incarnation;
        Self {
            name,
            world,
            incarnation,
        }
    }

    fn failed(&self, reason: &str) -> HostError {
        HostError::Failed {
            host: self.name.clone(),
            reason: reason.into(),
        }
    }

    fn unreachable(&self) -> HostError {
        HostError::Unreachable {
            host: self.name.clone(),
            reason: "injected".into(),
        }
    }

    fn gone(&self, vm: &VmName, ran: bool) -> HostError {
        HostError::Gone {
            host: self.name.clone(),
            vm: vm.clone(),
            ran,
            how: "injected".into(),
        }
    }

    /// `None`: the daemon that asked has ended.
    fn answer(&self, call: HostCall) -> Option<Result<HostReply, HostError>> {
        let mut world = self.world.lock().unwrap();
        if world.incarnation != self.incarnation {
            return None;
        }
        // Who only looks has no effect.
        let verdict = match &call {
            HostCall::Look { .. } | HostCall::Account { .. } => Verdict::Normal,
            _ => world.effect(),
        };
        let effects = world.effects();
        match verdict {
            Verdict::Refuse => return Some(Err(self.failed("injected"))),
            Verdict::CrashBefore(crash) => {
                world.crash(crash);
                return None;
            }
            _ if self.name.as_str() == "b" && world.faults.away(effects) => {
                return Some(Err(self.unreachable()));
            }
            _ => {}
        }
        let reply = self.carry_out(&mut world, call);
        // Nobody may ever run twice; this panics if somebody does.
        assert!(world.places().count() > 0);
        match verdict {
            Verdict::LoseAnswer => Some(Err(self.unreachable())),
            Verdict::CrashAfter(crash) => {
                world.crash(crash);
                None
            }
            _ => Some(reply),
        }
    }

    /// Nobody can do anything with a QEMU that has ended.
    fn see_it_lives(&self, world: &World, call: &HostCall) -> Result<(), HostError> {
        let Some(vm) = call.vm() else { return Ok(()) };
        let there = &world.vms[vm];
        let ran = match (self.name.as_str(), there.source, there.destination) {
            ("a", Source::Dead(_), _) => true,
            ("b", _, Destination::Dead(ran)) => ran,
            _ => return Ok(()),
        };
        match call {
            // What is left of it is cleared away.
            HostCall::Discard { .. } | HostCall::Retire { .. } | HostCall::Account { .. } => Ok(()),
            _ => Err(self.gone(vm, ran)),
        }
    }

    fn carry_out(&self, world: &mut World, call: HostCall) -> Result<HostReply, HostError> {
        let here = self.name.as_str();
        self.see_it_lives(world, &call)?;
        match call {
            HostCall::Prepare { vm, .. } => {
                assert_eq!(here, "b");
                let vm = known(world, &vm);
                if vm.destination == Destination::None {
                    vm.destination = Destination::Waiting;
                }
                Ok(HostReply::Waiting {
                    uri: "tcp:b:1".into(),
                })
            }
            HostCall::StillWaits { vm, .. } => {
                assert_eq!(known(world, &vm).destination, Destination::Waiting);
                Ok(HostReply::Done)
            }
            HostCall::Account { vm } => {
                let said = match known(world, &vm).destination {
                    Destination::Dead(_) => "its QEMU has ended: injected".into(),
                    _ => String::new(),
                };
                Ok(HostReply::Account { said })
            }
            HostCall::Discard { vm, .. } => {
                assert_eq!(here, "b");
                let vm = known(world, &vm);
                assert!(
                    !matches!(
                        vm.destination,
                        Destination::Running | Destination::Lacking | Destination::Dead(true)
                    ),
                    "a VM that runs is discarded"
                );
                vm.destination = Destination::None;
                Ok(HostReply::Done)
            }
            HostCall::Resume { vm, .. } => {
                let there = known(world, &vm);
                match (there.source, there.destination) {
                    (_, Destination::Running | Destination::Lacking) => {}
                    (Source::Serving(_), Destination::Waiting) => {
                        there.destination = Destination::Lacking;
                    }
                    (Source::Completed | Source::Dead(true), Destination::Waiting) => {
                        there.destination = Destination::Running;
                    }
                    // Its stream broke off: QEMU says that it failed, and is ended.
                    (Source::Dead(false), Destination::Waiting) => {
                        there.destination = Destination::None;
                        return Err(self.gone(&vm, false));
                    }
                    (Source::Dead(_), Destination::None) => {
                        return Err(self.failed("no such VM"));
                    }
                    other => panic!("{vm} is to run: {other:?}"),
                }
                Ok(HostReply::Resumed { at_us: None })
            }
            HostCall::Plug { vm, .. } => {
                let vm = known(world, &vm);
                let whole = vm.destination != Destination::Lacking;
                assert!(whole, "an HCA is plugged before all memory is there");
                match here {
                    "a" => vm.hca_at_source = true,
                    _ => vm.hca_at_destination = true,
                }
                Ok(HostReply::Done)
            }
            HostCall::Unplug { vm, .. } => {
                world.see_job_survives_unplug(&vm);
                known(world, &vm).hca_at_source = false;
                Ok(HostReply::Done)
            }
            HostCall::StartCopy { vm, .. } => {
                let vm = known(world, &vm);
                if vm.hca_at_source {
                    return Err(self.failed("migration is blocked by the HCA"));
                }
                // One that cannot connect fails a little later.
                assert_ne!(vm.destination, Destination::None);
                vm.source = Source::Copying(100, false);
                Ok(HostReply::Done)
            }
            HostCall::CopyStatus { vm } => {
                let held = world.job == Job::Held;
                let gave_way = world.gives_way();
                let status = look(known(world, &vm), held || gave_way);
                Ok(HostReply::Copy { status })
            }
            HostCall::Stop { vm, postcopy } => {
                let vm = known(world, &vm);
                vm.rest = 0;
                match vm.source {
                    Source::Copying(left, _)
                        if postcopy.is_some() && vm.destination == Destination::Waiting =>
                    {
                        vm.rest = left;
                        vm.source = Source::Ready;
                    }
                    Source::Copying(left, _) => vm.source = Source::Copying(left, true),
                    // Its copy has failed, which nobody has looked at yet.
                    Source::Running => vm.source = Source::Copying(100, true),
                    Source::Ready => {}
                    other => panic!("{other:?} is stopped"),
                }
                Ok(HostReply::Stopped { at_us: None })
            }
            HostCall::CancelCopy { vm } => {
                let vm = known(world, &vm);
                assert!(
                    !matches!(vm.source, Source::Completed | Source::Serving(_)),
                    "a copy is cancelled that has crossed"
                );
                if matches!(vm.source, Source::Copying(_, true)) {
                    vm.lingers = vm.lingers.saturating_sub(1);
                }
                vm.source = Source::Running;
                Ok(HostReply::Done)
            }
            HostCall::Cross { vm, .. } => {
                world.crossed = true;
                let arrives = world.arrives();
                let vm = known(world, &vm);
                let waits = vm.destination == Destination::Waiting;
                match vm.source {
                    // Asked again.
                    Source::Completed => {
                        let crossing = Crossing::Completed {
                            downtime_ms: None,
                            transferred: 1,
                            passes: 3,
                        };
                        return Ok(HostReply::Crossed { crossing });
                    }
                    Source::Running => {
                        let crossing = Crossing::Stayed {
                            reason: "injected, earlier".into(),
                        };
                        return Ok(HostReply::Crossed { crossing });
                    }
                    Source::Serving(_) => return Ok(postcopy::follow(vm)),
                    other => assert_eq!(other, Source::Ready),
                }
                if !arrives || !waits {
                    vm.source = Source::Running;
                    let crossing = Crossing::Stayed {
                        reason: "injected".into(),
                    };
                    return Ok(HostReply::Crossed { crossing });
                }
                if vm.rest > 0 {
                    vm.source = Source::Serving(vm.rest);
                    return Ok(postcopy::follow(vm));
                }
                vm.source = Source::Completed;
                let crossing = Crossing::Completed {
                    downtime_ms: Some(1),
                    transferred: 1,
                    passes: 3,
                };
                Ok(HostReply::Crossed { crossing })
            }
            HostCall::Retire { vm } => {
                let vm = known(world, &vm);
                assert!(matches!(
                    vm.source,
                    Source::Completed | Source::Gone | Source::Dead(true)
                ));
                assert!(
                    matches!(
                        vm.destination,
                        Destination::Running | Destination::Dead(true)
                    ),
                    "the only copy is ended"
                );
                vm.source = Source::Gone;
                Ok(HostReply::Done)
            }
            HostCall::Reclaim { vm } => {
                let vm = known(world, &vm);
                if matches!(vm.source, Source::Serving(_)) {
                    return Err(self.failed("QEMU has let go of it"));
                }
                assert_eq!(
                    vm.destination,
                    Destination::Dead(false),
                    "it may have run there"
                );
                assert!(matches!(vm.source, Source::Completed | Source::Running));
                vm.source = Source::Running;
                Ok(HostReply::Done)
            }
            HostCall::Rejoin { vm } => Ok(postcopy::rejoin(known(world, &vm))),
            HostCall::SendOn { vm, .. } => Ok(postcopy::send_on(known(world, &vm))),
            HostCall::Forfeit { vm } => match postcopy::forfeit(here, known(world, &vm)) {
                true => Err(self.gone(&vm, true)),
                false => Ok(HostReply::Done),
            },
            HostCall::Adopt { wish, .. } => {
                world.handed_over = true;
                world.wish = wish;
                Ok(HostReply::Done)
            }
            HostCall::Release { .. } | HostCall::Pace { .. } | HostCall::Look { .. } => {
                Ok(HostReply::Done)
            }
            HostCall::Coordinates { .. } => Ok(HostReply::Done),
            HostCall::Admit { .. } => Err(self.failed("admission is before the operation")),
        }
    }
}

fn known<'w>(world: &'w mut World, vm: &VmName) -> &'w mut Vm {
    world.vms.get_mut(vm).expect("a VM of the plan")
}

/// Percent that a VM which dirties too much does not get below.
const DIRTY: u32 = 40;
/// Looks in one pass over the memory.
const LOOKS_A_PASS: u64 = 20;

fn look(vm: &mut Vm, held: bool) -> CopyStatus {
    vm.looks += 1;
    let dirties = vm.dirties && !held;
    let failed = !matches!(vm.destination, Destination::Waiting);
    if let (Source::Copying(left, stopped), false) = (vm.source, failed) {
        vm.source = match (left, stopped) {
            (0..=10, true) if vm.lingers == 0 => Source::Ready,
            (DIRTY.., false) if dirties => Source::Copying((left / 2).max(DIRTY), false),
            _ => Source::Copying((left / 2).max(2), stopped),
        };
    }
    let (state, left) = match vm.source {
        Source::Copying(left, _) if failed => {
            vm.source = Source::Running;
            ("failed", u64::from(left))
        }
        Source::Copying(left, _) => ("active", u64::from(left)),
        Source::Ready => ("pre-switchover", 0),
        Source::Completed => ("completed", 0),
        Source::Running | Source::Serving(_) | Source::Gone | Source::Dead(_) => ("none", 100),
    };
    CopyStatus {
        state: state.into(),
        total: 100 << 20,
        remaining: left << 20,
        transferred: (100 - left) << 20,
        bandwidth: 100 << 20,
        passes: match left < 20 {
            true => 3,
            false => 1 + vm.looks / LOOKS_A_PASS,
        },
        dirty_rate: if dirties { 100 << 20 } else { 0 },
        expected_downtime_ms: Some(if left < 10 { 10 } else { 5000 }),
        ..CopyStatus::default()
    }
}

impl Host for SimulatedHost {
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        Box::pin(async move {
            // Every answer takes some time, so that a cancel can come in between.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            match self.answer(call) {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

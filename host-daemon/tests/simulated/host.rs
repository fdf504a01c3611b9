//! A host that carries out calls in the simulated world.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::operation::effects::{
    CopyStatus, Crossing, Host, HostCall, HostError, HostReply,
};

use super::world::{Destination, Source, Verdict, Vm, World};

pub struct SimulatedHost {
    name: HostName,
    world: Arc<Mutex<World>>,
}

impl SimulatedHost {
    pub fn new(name: HostName, world: Arc<Mutex<World>>) -> Self {
        Self { name, world }
    }

    fn failed(&self, reason: &str) -> HostError {
        HostError::Failed {
            host: self.name.clone(),
            reason: reason.into(),
        }
    }

    fn answer(&self, call: HostCall) -> Result<HostReply, HostError> {
        let mut world = self.world.lock().unwrap();
        let verdict = world.effect();
        if verdict == Verdict::Refuse {
            return Err(self.failed("injected"));
        }
        let reply = self.carry_out(&mut world, call)?;
        // Nobody may ever run twice; this panics if somebody does.
        assert!(world.places().count() > 0);
        match verdict {
            Verdict::LoseAnswer => Err(HostError::Unreachable {
                host: self.name.clone(),
                reason: "injected".into(),
            }),
            Verdict::Normal | Verdict::Refuse | Verdict::Break => Ok(reply),
        }
    }

    fn carry_out(&self, world: &mut World, call: HostCall) -> Result<HostReply, HostError> {
        let here = self.name.as_str();
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
            HostCall::Discard { vm, .. } => {
                assert_eq!(here, "b");
                let vm = known(world, &vm);
                assert_ne!(
                    vm.destination,
                    Destination::Running,
                    "a VM that runs is discarded"
                );
                vm.destination = Destination::None;
                Ok(HostReply::Done)
            }
            HostCall::Resume { vm, .. } => {
                let vm = known(world, &vm);
                assert_eq!(
                    vm.source,
                    Source::Completed,
                    "run before its source has completed"
                );
                vm.destination = Destination::Running;
                Ok(HostReply::Resumed { at_us: None })
            }
            HostCall::Plug { vm, .. } => {
                let vm = known(world, &vm);
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
                assert_eq!(vm.destination, Destination::Waiting);
                vm.source = Source::Copying(100, false);
                Ok(HostReply::Done)
            }
            HostCall::CopyStatus { vm } => Ok(HostReply::Copy {
                status: look(known(world, &vm)),
            }),
            HostCall::Stop { vm } => {
                let vm = known(world, &vm);
                let Source::Copying(left, _) = vm.source else {
                    panic!("{:?} is stopped", vm.source);
                };
                vm.source = Source::Copying(left, true);
                Ok(HostReply::Stopped { at_us: None })
            }
            HostCall::CancelCopy { vm } => {
                let vm = known(world, &vm);
                assert_ne!(
                    vm.source,
                    Source::Completed,
                    "a copy that has completed is cancelled"
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
                assert_eq!(vm.source, Source::Ready);
                if !arrives {
                    vm.source = Source::Running;
                    let crossing = Crossing::Stayed {
                        reason: "injected".into(),
                    };
                    return Ok(HostReply::Crossed { crossing });
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
                assert!(matches!(vm.source, Source::Completed | Source::Gone));
                assert_eq!(
                    vm.destination,
                    Destination::Running,
                    "the only copy is ended"
                );
                vm.source = Source::Gone;
                Ok(HostReply::Done)
            }
            HostCall::Adopt { .. } => {
                world.handed_over = true;
                Ok(HostReply::Done)
            }
            HostCall::Release { .. } | HostCall::Pace { .. } => Ok(HostReply::Done),
            HostCall::Admit { .. } => Err(self.failed("admission is before the operation")),
        }
    }
}

fn known<'w>(world: &'w mut World, vm: &VmName) -> &'w mut Vm {
    world.vms.get_mut(vm).expect("a VM of the plan")
}

fn look(vm: &mut Vm) -> CopyStatus {
    if let Source::Copying(left, stopped) = vm.source {
        vm.source = match (left, stopped) {
            (0..=10, true) if vm.lingers == 0 => Source::Ready,
            _ => Source::Copying((left / 2).max(2), stopped),
        };
    }
    let (state, left) = match vm.source {
        Source::Copying(left, _) => ("active", u64::from(left)),
        Source::Ready => ("pre-switchover", 0),
        Source::Completed => ("completed", 0),
        Source::Running | Source::Gone => ("none", 100),
    };
    CopyStatus {
        state: state.into(),
        total: 100 << 20,
        remaining: left << 20,
        transferred: (100 - left) << 20,
        bandwidth: 100 << 20,
        passes: if left < 20 { 3 } else { 1 },
        expected_downtime_ms: Some(if left < 10 { 10 } else { 5000 }),
        ..CopyStatus::default()
    }
}

impl Host for SimulatedHost {
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        Box::pin(async move {
            // Every answer takes some time, so that a cancel can come in between.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            self.answer(call)
        })
    }
}

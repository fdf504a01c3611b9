//! The gang's guests in the simulated world.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::operation::Target;
use symvirt_host::operation::effects::{Guests, HandOver, Left, Standing, SwitchFailure, Switched};
use symvirt_protocol::agent::{DeviceReport, Holder, VerbsDevice, VerbsPort};

use super::world::{Destination, Fault, Job, Verdict, World};

pub struct SimulatedGuests {
    world: Arc<Mutex<World>>,
}

type Outcome<'a> = BoxFuture<'a, Result<Switched, SwitchFailure>>;

impl SimulatedGuests {
    pub fn new(world: Arc<Mutex<World>>) -> Self {
        Self { world }
    }

    fn become_job(&self, wanted: Job, needs: fn(Job) -> bool) -> Outcome<'_> {
        Box::pin(async move {
            let verdict = {
                let mut world = self.world.lock().unwrap();
                assert!(world.ranks, "no rank is there to be switched");
                assert!(needs(world.job), "{wanted:?} asked for in {:?}", world.job);
                world.aborted = false;
                world.effect()
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut world = self.world.lock().unwrap();
            if verdict == Verdict::Refuse {
                return Err(SwitchFailure::Aborted("injected veto".into()));
            }
            if world.aborted {
                return Err(SwitchFailure::Aborted("cancelled".into()));
            }
            world.job = wanted;
            if verdict == Verdict::Break {
                return Err(SwitchFailure::Broken {
                    reason: "injected death".into(),
                    left: match wanted {
                        Job::Held => Left::Held,
                        Job::Native | Job::Fallback => Left::After,
                    },
                });
            }
            Ok(Switched { stalls: Vec::new() })
        })
    }
}

fn job_on(to: Target) -> Job {
    match to {
        Target::Native => Job::Native,
        Target::Fallback => Job::Fallback,
    }
}

impl Guests for SimulatedGuests {
    fn recover(
        &self,
        _vms: &[VmName],
        _limit: Duration,
    ) -> BoxFuture<'_, Result<Standing, SwitchFailure>> {
        let world = self.world.lock().unwrap();
        let standing = Standing {
            interconnect: match world.job {
                // Only a job that is on its HCAs is ever held here.
                Job::Native | Job::Held => Target::Native,
                Job::Fallback => Target::Fallback,
            },
            held: world.job == Job::Held,
            ranks: world.ranks,
        };
        Box::pin(async move { Ok(standing) })
    }

    fn switch(&self, to: Target, _limit: Duration) -> Outcome<'_> {
        self.become_job(job_on(to), |job| job != Job::Held)
    }

    fn hold(&self, _limit: Duration) -> Outcome<'_> {
        self.become_job(Job::Held, |job| job != Job::Held)
    }

    fn rebuild(&self, to: Target, _limit: Duration) -> Outcome<'_> {
        self.become_job(job_on(to), |job| job == Job::Held)
    }

    fn abort(&self) {
        self.world.lock().unwrap().aborted = true;
    }

    fn devices(&self, vm: &VmName) -> Option<DeviceReport> {
        let world = self.world.lock().unwrap();
        let there = &world.vms[vm];
        let plugged = match there.destination {
            Destination::Running => there.hca_at_destination,
            Destination::None | Destination::Waiting => there.hca_at_source,
        };
        let rank = Holder {
            pid: 7,
            program: "app".into(),
            rank: true,
        };
        let mut holders = Vec::new();
        if world.ranks && world.job == Job::Native {
            holders.push(rank);
        }
        if world.has(Fault::Stranger) {
            let program = "ibv_asyncwatch".into();
            holders.push(Holder {
                pid: 99,
                program,
                rank: false,
            });
        }
        let at_destination = there.destination == Destination::Running;
        let active = !(world.has(Fault::LinkDown) && at_destination);
        let device = VerbsDevice {
            name: "rxe0".into(),
            ports: vec![VerbsPort {
                number: 1,
                active,
                state: "4: ACTIVE".into(),
                gids: vec!["fe80::1".into()],
                bytes: Some((1, 2)),
            }],
            netdev: None,
            holders,
        };
        Some(DeviceReport {
            verbs: if plugged { vec![device] } else { vec![] },
            netdevs: vec![],
        })
    }

    fn ask_devices(&self, _vm: &VmName) {}

    fn died_held(&self) -> Option<String> {
        let world = self.world.lock().unwrap();
        let dead = world.has(Fault::DiesHeld) && world.job == Job::Held;
        dead.then(|| "rank 1 (app, pid 7, guest vm1)".into())
    }

    fn hand_over(&self) -> BoxFuture<'_, HandOver> {
        Box::pin(async {
            HandOver {
                epoch: 1,
                interconnect: Target::Native,
                agents: vec![],
            }
        })
    }

    fn moved(&self, vm: &VmName, _host: &HostName) {
        assert_eq!(
            self.world.lock().unwrap().vms[vm].destination,
            Destination::Running
        );
    }
}

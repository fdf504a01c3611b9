//! The gang's guests in the simulated world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::operation::Target;
use symvirt_host::operation::effects::{Guests, HandOver, Left, Standing, SwitchFailure, Switched};
use symvirt_protocol::agent::{DeviceReport, Holder, VerbsDevice, VerbsPort};

use super::faults::{Fault, Verdict};
use super::world::{Destination, Job, World};

pub struct SimulatedGuests {
    world: Arc<Mutex<World>>,
    /// The daemon that asks.
    incarnation: usize,
}

type Outcome<'a> = BoxFuture<'a, Result<Switched, SwitchFailure>>;

impl SimulatedGuests {
    pub fn new(world: Arc<Mutex<World>>) -> Self {
        let incarnation = world.lock().unwrap().incarnation;
        Self { world, incarnation }
    }

    fn become_job(&self, wanted: Job, needs: fn(Job) -> bool) -> Outcome<'_> {
        Box::pin(async move {
            let verdict = {
                let mut world = self.world.lock().unwrap();
                let ended = world.incarnation != self.incarnation;
                let verdict = if ended { None } else { Some(world.effect()) };
                assert!(world.ranks, "no rank is there to be switched");
                assert!(
                    ended || needs(world.job),
                    "{wanted:?} asked for in {:?}",
                    world.job
                );
                if !ended {
                    world.aborted = false;
                    world.switching = Some(wanted);
                }
                if let Some(Verdict::CrashBefore(crash)) = verdict {
                    world.crash(crash);
                }
                verdict
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
            // The coordinator waits for it, and begins again.
            let back = self.world.lock().unwrap().agent_back;
            if let Some(back) = back {
                tokio::time::sleep_until(back).await;
            }
            self.if_alive().await;
            let mut world = self.world.lock().unwrap();
            world.switching = None;
            if let Some(Verdict::CrashAfter(crash)) = verdict {
                world.job = wanted;
                world.crash(crash);
            }
            let verdict = verdict.unwrap_or(Verdict::Normal);
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

impl SimulatedGuests {
    /// Returns only to a daemon that has not ended.
    async fn if_alive(&self) {
        if self.world.lock().unwrap().incarnation != self.incarnation {
            std::future::pending::<()>().await;
        }
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

    fn slow_down(&self, percent: u8) {
        self.world.lock().unwrap().slowed.push(percent);
    }

    fn silent(&self) -> Vec<VmName> {
        let world = self.world.lock().unwrap();
        let vms = world.vms.keys();
        vms.filter(|vm| world.is_mute(vm)).cloned().collect()
    }

    fn devices(&self, vm: &VmName) -> Option<DeviceReport> {
        let world = self.world.lock().unwrap();
        if world.is_mute(vm) {
            return None;
        }
        let there = &world.vms[vm];
        let plugged = match there.destination {
            Destination::Running | Destination::Lacking => there.hca_at_destination,
            Destination::None | Destination::Waiting | Destination::Dead(_) => there.hca_at_source,
        };
        let rank = Holder {
            pid: 7,
            program: "app".into(),
            rank: !world.is_new(vm),
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

    fn drop_cache(&self, _limit: Duration) -> BoxFuture<'_, BTreeMap<VmName, u64>> {
        let vms = self
            .world
            .lock()
            .unwrap()
            .vms
            .keys()
            .cloned()
            .collect::<Vec<_>>();
        Box::pin(async move { vms.into_iter().map(|vm| (vm, 4096)).collect() })
    }

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
        let there = self.world.lock().unwrap().vms[vm].destination;
        assert!(matches!(
            there,
            Destination::Running | Destination::Lacking | Destination::Dead(true)
        ));
    }

    fn lost(&self, _vm: &VmName) {}
}

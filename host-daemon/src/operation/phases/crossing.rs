//! The switchover: beyond the point of no return every VM either arrives or stays.
//!
//! ```text
//!   source: migrate-continue ─► completed ─► destination: cont ─► the job settles ─► guest channel
//!                          └──► failed: it runs at the source again
//! ```
//!
//! A destination runs only after its source has completed, or, in postcopy, has let go of the VM for
//! good. If that cannot be found out, the VM is
//! reported as unknown and not touched. A QEMU that ends decides: if the source's does, the
//! destination runs what it has in whole; if the destination's does before it ran, the source, which
//! still has everything, runs again.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Crew;
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::effects::{Crossing, HostCall, HostError, HostReply};
use crate::operation::plan::VmPlan;
use crate::operation::state::Event;

/// For the last pages and the device state; the downtime limit is QEMU's affair.
const CROSSING_MS: u64 = 60_000;
/// How long the destination is asked to run a VM before an operator is.
const ASKING: Duration = Duration::from_secs(60);
/// For a running job to go on at the destination before its guests are given other work.
const SETTLING: Duration = Duration::from_millis(500);
/// Longest pause between two requests.
const PAUSE: Duration = Duration::from_secs(2);

enum Fate {
    Arrived,
    Stayed(String),
    Unknown(String),
    Lost(String),
}

impl Crew {
    pub(super) async fn cross(&self) -> Event {
        self.doing("the VMs cross");
        let crossings = self.plan.vms.iter().map(|vm| self.cross_one(vm));
        let mut stayed = Vec::new();
        let mut unknown = Vec::new();
        for (vm, fate) in join_all(crossings).await {
            match fate {
                Fate::Arrived => {}
                Fate::Stayed(why) => stayed.push((vm, why)),
                Fate::Lost(how) => self.lose(&vm, &how),
                Fate::Unknown(what) => unknown.push((vm, what)),
            }
        }
        self.measured().settles_at = Some(Instant::now() + SETTLING);
        if stayed.is_empty() && unknown.is_empty() {
            Event::Completed
        } else {
            Event::Split { stayed, unknown }
        }
    }

    /// Leaves the guests that have just arrived alone for a moment: their caches are cold, and the
    /// job sends again what was lost on the way. A job that is held waits for us instead.
    pub(super) async fn settle(&self) {
        let Some(at) = self.measured().settles_at.take() else {
            return;
        };
        if !self.holds() {
            self.doing("the job finds its feet at the destination");
            tokio::time::sleep_until(at).await;
        }
        let arrived = std::mem::take(&mut self.measured().arrived);
        for (vm, host) in arrived {
            self.guests.moved(&vm, &host);
        }
    }

    async fn cross_one(&self, plan: &VmPlan) -> (VmName, Fate) {
        let vm = &plan.vm;
        let call = HostCall::Cross {
            vm: vm.clone(),
            limit_ms: CROSSING_MS,
        };
        let fate = match self.source.call(call).await {
            Ok(HostReply::Crossed { crossing }) => match crossing {
                Crossing::Stayed { reason } => Fate::Stayed(match self.account(vm).await {
                    Some(said) => format!("{reason}; at the destination: {said}"),
                    None => reason,
                }),
                Crossing::Completed { .. } | Crossing::Postcopy { .. } => {
                    self.crossed(vm, crossing);
                    self.arrive(plan).await
                }
            },
            Ok(_) => Fate::Unknown("the source's answer is not understood".into()),
            Err(HostError::Gone { how, .. }) => self.arrive_alone(plan, how).await,
            Err(error) => Fate::Unknown(format!(
                "{}; `symvirt vm list` on {} shows it: `migrated` means that the destination may \
                 run it",
                chain(&error),
                plan.source
            )),
        };
        (vm.clone(), fate)
    }

    /// Tells how a VM crossed, or how far it is.
    pub(super) fn crossed(&self, vm: &VmName, crossing: Crossing) {
        match crossing {
            Crossing::Completed {
                downtime_ms,
                transferred,
                passes,
            } => {
                self.vm_report(vm, |entry| {
                    entry.downtime_ms = downtime_ms;
                    entry.bytes = transferred;
                    entry.passes = passes;
                });
                self.progress(|progress| {
                    for shown in progress.vms.iter_mut().filter(|shown| shown.vm == *vm) {
                        shown.copy.state = "completed".into();
                        shown.copy.remaining = 0;
                        shown.copy.transferred = transferred;
                    }
                });
            }
            Crossing::Postcopy { copy } => self.show_vm(vm, copy),
            Crossing::Stayed { .. } => {}
        }
    }

    async fn arrive(&self, plan: &VmPlan) -> Fate {
        let vm = &plan.vm;
        let begin = Instant::now();
        let mut pause = Duration::from_millis(50);
        let last = loop {
            let operation = self.plan.id.clone();
            let call = HostCall::Resume {
                operation,
                vm: vm.clone(),
            };
            match self.destination.call(call).await {
                Ok(reply) => {
                    self.arrived(vm, self.destination_name().cloned(), &reply);
                    return Fate::Arrived;
                }
                Err(HostError::Gone { ran: true, how, .. }) => return Fate::Lost(how),
                Err(HostError::Gone { how, .. }) => return self.reclaim(plan, how).await,
                Err(error) if begin.elapsed() > ASKING => break chain(&error),
                Err(_) => {}
            }
            // Its daemon may be restarting; nobody else can run the VM.
            tokio::time::sleep(pause).await;
            pause = PAUSE.min(pause * 2);
        };
        let host = self
            .destination_name()
            .map_or("the destination", |host| host.as_str());
        Fate::Unknown(format!(
            "its source has let it go, and {host} did not say that it runs it: {last}; on {host}, \
             `symvirt vm list`, and if {vm} is paused there, \
             `symvirt vm resume {vm} --source-is-stopped`"
        ))
    }

    /// The source's QEMU has ended: the VM is what the destination has of it.
    async fn arrive_alone(&self, plan: &VmPlan, how: String) -> Fate {
        let call = HostCall::Resume {
            operation: self.plan.id.clone(),
            vm: plan.vm.clone(),
        };
        match self.destination.call(call).await {
            Ok(reply) => {
                self.arrived(&plan.vm, self.destination_name().cloned(), &reply);
                Fate::Arrived
            }
            Err(HostError::Unreachable { host, reason }) => Fate::Unknown(format!(
                "its source has ended ({how}), and {host} does not answer: {reason}; on {host}, \
                 `symvirt vm list`, and if {vm} is paused there, \
                 `symvirt vm resume {vm} --source-is-stopped`",
                vm = plan.vm
            )),
            Err(_) => Fate::Lost(how),
        }
    }

    /// The destination's QEMU has ended before it ran: the source has everything.
    async fn reclaim(&self, plan: &VmPlan, how: String) -> Fate {
        let vm = plan.vm.clone();
        match self.source.call(HostCall::Reclaim { vm }).await {
            Ok(_) => Fate::Stayed(format!("the QEMU that waited for it has ended: {how}")),
            Err(error) => Fate::Lost(format!("{how}; then: {}", chain(&error))),
        }
    }

    fn arrived(&self, vm: &VmName, host: Option<crate::config::HostName>, reply: &HostReply) {
        let stopped = self.measured().stopped_at_us.get(vm).copied();
        let stopped_ms = match (reply, stopped) {
            (
                HostReply::Resumed {
                    at_us: Some(resumed),
                },
                Some(stopped),
            ) => resumed.checked_sub(stopped).map(|us| us as f64 / 1000.0),
            _ => None,
        };
        if let Some(host) = &host {
            self.measured().arrived.push((vm.clone(), host.clone()));
        }
        self.vm_report(vm, |entry| {
            entry.host = host;
            entry.stopped_ms = stopped_ms;
        });
    }
}

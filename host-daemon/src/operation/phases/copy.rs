//! The copying of all VMs, which converge together.
//!
//! ```text
//!   iterate under a tiny downtime limit, ◄── a VM stood too long: begin its copy anew ──┐
//!   all at the pace of the slowest                                                      │
//!        │ every VM fits the target                                                     │
//!        ▼                                                                              │
//!   lift the limits and the pace of all at once ─► every VM stands in `pre-switchover` ─┤
//!                                                                │ all do               │
//!                                                                ▼                      │
//!                                                               done
//! ```
//!
//! A VM that stands in `pre-switchover` is stopped, and the rest of the gang soon waits for its
//! ranks. Hence nobody is let into it before everybody fits: a VM ahead of the others is slowed
//! down, so that it keeps iterating. QEMU lets nobody leave `pre-switchover` but by a cancel, so
//! a VM that got there and waits in vain is cancelled, runs, and is copied again.

mod pace;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::pace::{Pace, fits};
use super::{Crew, Outcome};
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::effects::{CopyStatus, HostCall, HostReply};

/// Downtime limit under which a VM that runs anything keeps iterating.
const TINY_MS: u64 = 1;
/// Interval of looking while everything still iterates.
const LOOK: Duration = Duration::from_millis(100);
/// Interval of looking once the limits are lifted, when VMs stand still.
const LOOK_CLOSELY: Duration = Duration::from_millis(2);
/// How long a VM may stand before the others do, in multiples of the downtime asked for.
const PATIENCE: u32 = 2;
/// The same at least.
const PATIENCE_MIN: Duration = Duration::from_millis(500);
/// Copies that are begun anew in one operation before it is given up.
const ANEW: u32 = 4;

pub(super) const READY: &str = "pre-switchover";

type Copies = Vec<(VmName, CopyStatus)>;

impl Crew {
    pub(super) async fn copy(&self) -> Outcome {
        let limits = *self.plan.limits();
        self.doing("copying while the VMs run");
        let vms: Vec<_> = self.plan.vms.iter().map(|vm| vm.vm.clone()).collect();
        self.start_copies(&vms).await?;
        let deadline = Instant::now() + limits.converge();
        let patience = PATIENCE_MIN.max(limits.downtime() * PATIENCE);
        let mut pace = Pace::new(limits.bandwidth);
        let mut lifted = false;
        let mut standing: Vec<(VmName, Instant)> = Vec::new();
        let mut anew = 0;
        loop {
            let copies = self.look().await?;
            for (vm, copy) in &copies {
                if copy.state == READY && !standing.iter().any(|(name, _)| name == vm) {
                    standing.push((vm.clone(), Instant::now()));
                }
            }
            if let Some(rank) = self.died_held() {
                return Err(rank);
            }
            if standing.len() == copies.len() {
                self.all_ready(&copies, &standing);
                return self.last_check().await;
            }
            if self.shown.borrow().state.cancelled {
                return Err("cancelled".into());
            }
            if Instant::now() >= deadline {
                return Err(too_slow(
                    &copies,
                    &pace,
                    limits.downtime_ms,
                    limits.converge(),
                ));
            }
            let longest = standing.iter().map(|(_, since)| since.elapsed()).max();
            if longest.is_some_and(|longest| longest > patience) {
                if anew == ANEW {
                    return Err(too_slow(&copies, &pace, limits.downtime_ms, patience));
                }
                anew += 1;
                self.begin_anew(&standing, &copies).await?;
                standing.clear();
                pace = Pace::new(limits.bandwidth);
                lifted = false;
            } else if !lifted {
                if copies
                    .iter()
                    .all(|(_, copy)| fits(copy, &pace, limits.downtime_ms))
                {
                    self.lift(&copies, &mut pace, limits.downtime_ms).await?;
                    lifted = true;
                } else {
                    self.keep_pace(&copies, &mut pace).await?;
                }
            }
            sleep(if standing.is_empty() && !lifted {
                LOOK
            } else {
                LOOK_CLOSELY
            })
            .await;
        }
    }

    /// A job that lost a rank while it was held is lost as a whole, and its launcher can end it
    /// only where it is: the copy is not worth going on.
    fn died_held(&self) -> Option<String> {
        let rank = self.guests.died_held().filter(|_| self.plan.holds())?;
        Some(format!("{rank} died while the job was held"))
    }

    /// Everybody stands before the point of no return: is the destination still there?
    async fn last_check(&self) -> Outcome {
        let operation = &self.plan.id;
        self.each(&self.destination, self.plan.vms.iter(), |vm| {
            HostCall::StillWaits {
                operation: operation.clone(),
                vm: vm.vm.clone(),
            }
        })
        .await
        .map(|_| ())
    }

    async fn start_copies(&self, vms: &[VmName]) -> Outcome {
        let bandwidth = self.plan.limits().bandwidth;
        let uris = self.measured().uris.clone();
        if let Some(vm) = vms.iter().find(|vm| !uris.contains_key(*vm)) {
            return Err(format!("{vm}: no destination waits for it"));
        }
        let plans = self.plan.vms.iter().filter(|vm| vms.contains(&vm.vm));
        self.each(&self.source, plans, |vm| HostCall::StartCopy {
            vm: vm.vm.clone(),
            uri: uris[&vm.vm].clone(),
            downtime_ms: TINY_MS,
            bandwidth,
        })
        .await
        .map(|_| ())
    }

    async fn look(&self) -> Result<Copies, String> {
        let calls = self.plan.vms.iter().map(|vm| {
            let call = self.source.call(HostCall::CopyStatus { vm: vm.vm.clone() });
            async move { (vm.vm.clone(), call.await) }
        });
        let mut copies = Vec::new();
        for (vm, reply) in join_all(calls).await {
            match reply {
                Ok(HostReply::Copy { status }) => {
                    if matches!(status.state.as_str(), "failed" | "cancelled" | "completed") {
                        let why = status.error.as_deref().unwrap_or("QEMU gives no reason");
                        return Err(format!("the copy of {vm} is {}: {why}", status.state));
                    }
                    self.show_vm(&vm, status.clone());
                    copies.push((vm, status));
                }
                Ok(_) => return Err(format!("{vm}: the source did not say how far the copy is")),
                Err(error) => return Err(format!("{vm}: {}", chain(&error))),
            }
        }
        Ok(copies)
    }

    /// Slows down the VMs that are ahead of the slowest.
    async fn keep_pace(&self, copies: &Copies, pace: &mut Pace) -> Outcome {
        let changes = pace.look(copies);
        let vms = self
            .plan
            .vms
            .iter()
            .filter(|vm| changes.contains_key(&vm.vm));
        self.each(&self.source, vms, |vm| HostCall::Pace {
            vm: vm.vm.clone(),
            bandwidth: changes[&vm.vm],
        })
        .await
        .map(|_| ())
    }

    async fn lift(&self, copies: &Copies, pace: &mut Pace, downtime_ms: u64) -> Outcome {
        self.doing("every VM fits its downtime; bringing all before the switchover");
        let bandwidth = self.plan.limits().bandwidth;
        let paced = pace.all_off();
        let vms = self.plan.vms.iter().filter(|vm| paced.contains(&vm.vm));
        self.each(&self.source, vms, |vm| HostCall::Pace {
            vm: vm.vm.clone(),
            bandwidth,
        })
        .await?;
        self.limit_downtime(copies, downtime_ms).await
    }

    async fn limit_downtime(&self, copies: &Copies, downtime_ms: u64) -> Outcome {
        let moving = |vm: &VmName| {
            copies
                .iter()
                .any(|(name, c)| name == vm && c.state != READY)
        };
        let vms = self.plan.vms.iter().filter(|vm| moving(&vm.vm));
        self.each(&self.source, vms, |vm| HostCall::LiftDowntime {
            vm: vm.vm.clone(),
            downtime_ms,
        })
        .await
        .map(|_| ())
    }

    /// Lets the VMs that stand run again, and copies them from the beginning.
    async fn begin_anew(&self, standing: &[(VmName, Instant)], copies: &Copies) -> Outcome {
        let names: Vec<_> = standing.iter().map(|(vm, _)| vm.clone()).collect();
        let list = names
            .iter()
            .map(VmName::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        self.doing(format!(
            "{list} would have stood still too long; copying it anew"
        ));
        self.note(format!(
            "{list} was ready too long before the others and was copied anew"
        ));
        self.limit_downtime(copies, TINY_MS).await?;
        let plans = || self.plan.vms.iter().filter(|vm| names.contains(&vm.vm));
        self.each(&self.source, plans(), |vm| HostCall::CancelCopy {
            vm: vm.vm.clone(),
        })
        .await?;
        for (vm, since) in standing {
            let waited = since.elapsed().as_secs_f64() * 1000.0;
            self.vm_report(vm, |entry| entry.waited_ms += waited);
        }
        let operation = &self.plan.id;
        self.each(&self.destination, plans(), |vm| HostCall::Discard {
            operation: operation.clone(),
            vm: vm.vm.clone(),
        })
        .await?;
        self.wait_at_destination(plans()).await?;
        self.start_copies(&names).await
    }

    fn all_ready(&self, copies: &Copies, standing: &[(VmName, Instant)]) {
        for (vm, copy) in copies {
            let since = standing.iter().find(|(ready, _)| ready == vm);
            let waited = since.map_or(0.0, |(_, since)| since.elapsed().as_secs_f64() * 1000.0);
            self.vm_report(vm, |entry| {
                entry.waited_ms += waited;
                entry.bytes = copy.transferred;
                entry.passes = copy.passes;
            });
            if let Some(at) = copy.stopped_at_us {
                self.measured().stopped_at_us.insert(vm.clone(), at);
            }
        }
    }

    pub(super) async fn cancel_copy(&self) -> Outcome {
        self.doing("ending the copies; the VMs run at the source");
        self.each(&self.source, self.plan.vms.iter(), |vm| {
            HostCall::CancelCopy { vm: vm.vm.clone() }
        })
        .await
        .map(|_| ())
        .map_err(|reason| {
            format!(
                "{reason}; see by `symvirt vm list` on both hosts where each VM is running, and \
                 end the copy that is not by `symvirt vm stop`"
            )
        })
    }
}

fn too_slow(copies: &Copies, pace: &Pace, downtime_ms: u64, limit: Duration) -> String {
    let slow: Vec<_> = copies
        .iter()
        .filter(|(_, copy)| copy.state != READY)
        .map(|(vm, copy)| {
            format!(
                "{vm} dirties {:.1} MB/s and is copied at {:.1} MB/s",
                copy.dirty_rate as f64 / 1e6,
                pace.nominal(copy) as f64 / 1e6
            )
        })
        .collect();
    format!(
        "the gang did not converge to a downtime of {downtime_ms} ms within {:.1} s: {}; allow a \
         longer --downtime, or use --mode hold",
        limit.as_secs_f64(),
        slow.join(", ")
    )
}

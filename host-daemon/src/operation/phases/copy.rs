//! The copying of all VMs, which converge together and stop together.
//!
//! ```text
//!   iterate while all run, at the pace of the slowest ◄───────── let them run, ──┐
//!        │ every VM fits the downtime, and nobody is slowed,       begin anew    │
//!        │ or never will, and is to be forced                                    │
//!        ▼                                                                       │
//!   stop all in the same instant ─► the rest goes over ─► all in `pre-switchover`, or not in time
//!                                                                │ all
//!                                                                ▼
//!                                                               done
//! ```
//!
//! A VM that stands still soon makes the ranks of all others wait. Hence no VM decides by itself
//! when it stops: QEMU iterates until it is told (`Settings::await_stop`). Nothing dirties memory
//! any more then, so what is left is bounded by what was left at the last look. QEMU lets nobody
//! leave `pre-switchover` but by a cancel, so VMs that got there in vain are copied anew.

mod again;
mod converge;
mod pace;
mod share;
mod slower;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::converge::{Converged, too_slow};
use self::pace::Pace;
use super::{Crew, Outcome, Trouble};
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::convergence::{drops_cache, streams};
use crate::operation::effects::{CopyStatus, HostCall, HostReply};
use crate::operation::phase::Phase;
use crate::operation::plan::VmPlan;

/// Interval of looking while everything iterates.
const LOOK: Duration = Duration::from_millis(100);
/// The same when all may soon fit.
const LOOK_NEAR: Duration = Duration::from_millis(20);
/// Interval of looking when VMs stand still, or are about to.
const LOOK_CLOSELY: Duration = Duration::from_millis(2);
/// How long the VMs may stand before the last is ready, in multiples of the downtime asked for.
const PATIENCE: u32 = 2;
/// The same at least.
const PATIENCE_MIN: Duration = Duration::from_millis(500);
/// For the guests to drop their page caches: some seconds with hundreds of gigabytes.
const DROPS_CACHE: Duration = Duration::from_secs(20);
/// How often the VMs are stopped in vain in one operation before it is given up.
const IN_VAIN: u32 = 4;

pub(super) const READY: &str = "pre-switchover";

type Copies = Vec<(VmName, CopyStatus)>;

impl Crew {
    pub(super) async fn copy(&self, phase: Phase) -> Result<(), Trouble> {
        self.begin_copies(phase).await?;
        match self.copy_to_the_end().await {
            Err(Trouble::CopyEnded { vm, reason }) => self.second_copy(vm, reason).await,
            ended => ended,
        }
    }

    async fn copy_to_the_end(&self) -> Result<(), Trouble> {
        let limits = *self.plan.limits();
        let deadline = Instant::now() + limits.converge();
        let patience = PATIENCE_MIN.max(limits.downtime() * PATIENCE);
        let mut pace = self.first_pace();
        for _ in 0..IN_VAIN {
            let (patience, rest_follows) = match self.converge(&mut pace, deadline).await? {
                Converged::Fits => (patience, false),
                Converged::Forced(rest) => {
                    self.note(format!(
                        "the VMs were stopped with more left than fits the downtime, {:.1} s by \
                         what was seen",
                        rest.as_secs_f64()
                    ));
                    (patience.max(rest * PATIENCE), false)
                }
                Converged::Early(rest) => {
                    self.note(format!(
                        "the VMs crossed before the rest of their memory, {:.1} s by what was seen",
                        rest.as_secs_f64()
                    ));
                    (patience, true)
                }
            };
            self.stop_together(&pace, rest_follows).await?;
            let copies = self.drain(patience).await?;
            if copies.iter().all(|(_, copy)| copy.state == READY) {
                return self.last_check().await;
            }
            self.begin_anew(&copies).await?;
            pace = self.first_pace();
        }
        let within = format!("within {:.1} s", patience.as_secs_f64());
        let copies = self.look().await?;
        let why = too_slow(&copies, &pace, limits.downtime_ms, &within);
        Err(Trouble::Failed(format!(
            "{why}; allow a longer --downtime, or use --mode hold"
        )))
    }

    fn first_pace(&self) -> Pace {
        Pace::new(self.plan.limits(), self.plan.vms.iter().map(|vm| &vm.vm))
    }

    async fn stop_together(&self, pace: &Pace, rest_follows: bool) -> Outcome {
        self.doing(match rest_follows {
            true => "all VMs are stopped, to cross before the rest of their memory",
            false => "every VM fits its downtime; all are stopped",
        });
        let stop = |vm: &VmPlan| HostCall::Stop {
            vm: vm.vm.clone(),
            postcopy: rest_follows.then(|| pace.allowed(&vm.vm)),
        };
        let stopped = self.each(&self.source, self.plan.vms.iter(), stop).await?;
        let mut measured = self.measured();
        for (vm, reply) in stopped {
            if let HostReply::Stopped { at_us: Some(at) } = reply {
                measured.stopped_at_us.insert(vm, at);
            }
        }
        Ok(())
    }

    /// Waits until every VM that stands has sent the rest, or for `patience`.
    async fn drain(&self, patience: Duration) -> Result<Copies, Trouble> {
        let stopped = Instant::now();
        let mut ready: Vec<(VmName, Instant)> = Vec::new();
        loop {
            let copies = self.look().await?;
            self.still_worth_it()?;
            for (vm, _) in copies.iter().filter(|(_, copy)| copy.state == READY) {
                if !ready.iter().any(|(name, _)| name == vm) {
                    ready.push((vm.clone(), Instant::now()));
                }
            }
            if ready.len() == copies.len() || stopped.elapsed() > patience {
                for (vm, since) in &ready {
                    let waited = since.elapsed().as_secs_f64() * 1000.0;
                    self.vm_report(vm, |entry| entry.waited_ms += waited);
                }
                for (vm, copy) in &copies {
                    self.vm_report(vm, |entry| {
                        entry.bytes = copy.transferred;
                        entry.passes = copy.passes;
                    });
                }
                return Ok(copies);
            }
            sleep(LOOK_CLOSELY).await;
        }
    }

    fn still_worth_it(&self) -> Outcome {
        if let Some(rank) = self.died_held() {
            return Err(rank);
        }
        if self.shown.borrow().state.cancelled {
            return Err("cancelled".into());
        }
        Ok(())
    }

    /// A job that lost a rank while it was held is lost as a whole, and its launcher can end it
    /// only where it is: the copy is not worth going on.
    fn died_held(&self) -> Option<String> {
        let rank = self.guests.died_held().filter(|_| self.holds())?;
        Some(format!("{rank} died while the job was held"))
    }

    /// Everybody stands before the point of no return: is the destination still there?
    async fn last_check(&self) -> Result<(), Trouble> {
        let operation = &self.plan.id;
        let vms = self.plan.vms.iter();
        let waiting = self.each(&self.destination, vms, |vm| HostCall::StillWaits {
            operation: operation.clone(),
            vm: vm.vm.clone(),
        });
        match waiting.await {
            Ok(_) => Ok(()),
            Err(reason) => Err(Trouble::CopyEnded { vm: None, reason }),
        }
    }

    pub(super) async fn start_copies(&self) -> Outcome {
        let limits = self.plan.limits();
        let known = self.measured().uris.len();
        if known < self.plan.vms.len() {
            // An earlier daemon knew them.
            self.wait_at_destination().await?;
        }
        let uris = self.measured().uris.clone();
        let to = self.destination_name().cloned();
        let to = to.ok_or("the request names no host to copy to")?;
        let pace = self.first_pace();
        self.drop_caches().await;
        self.each(&self.source, self.plan.vms.iter(), |vm| {
            HostCall::StartCopy {
                vm: vm.vm.clone(),
                to: to.clone(),
                uri: uris[&vm.vm].clone(),
                bandwidth: pace.allowed(&vm.vm),
                streams: streams(limits),
                throttle: self.throttle_of_qemu(),
            }
        })
        .await?;
        self.measured().copying = true;
        Ok(())
    }

    /// What is not in the guests' page caches need not be copied. A guest that does not answer is
    /// copied with it.
    async fn drop_caches(&self) {
        if !drops_cache(self.plan.limits()) {
            return;
        }
        self.doing("the guests drop their page caches");
        for (vm, bytes) in self.guests.drop_cache(DROPS_CACHE).await {
            self.vm_report(&vm, |entry| entry.cache_dropped = Some(bytes));
        }
    }

    /// Ranks are slowed down by the library instead, see [`slower`].
    fn throttle_of_qemu(&self) -> u8 {
        match self.plan.ranks {
            true => 0,
            false => self.plan.limits().throttle,
        }
    }

    async fn look(&self) -> Result<Copies, Trouble> {
        let calls = self.plan.vms.iter().map(|vm| {
            let call = self.source.call(HostCall::CopyStatus { vm: vm.vm.clone() });
            async move { (vm.vm.clone(), call.await) }
        });
        let mut copies = Vec::new();
        for (vm, reply) in join_all(calls).await {
            match reply {
                Ok(HostReply::Copy { status }) => {
                    let state = status.state.as_str();
                    if matches!(state, "failed" | "cancelled" | "completed") {
                        let why = status.error.as_deref().unwrap_or("QEMU gives no reason");
                        let reason = format!("the copy of {vm} is {state}: {why}");
                        return Err(match state {
                            "completed" => Trouble::Failed(reason),
                            _ => Trouble::CopyEnded {
                                vm: Some(vm),
                                reason,
                            },
                        });
                    }
                    self.show_vm(&vm, status.clone());
                    copies.push((vm, status));
                }
                Ok(_) => {
                    let strange = format!("{vm}: the source did not say how far the copy is");
                    return Err(strange.into());
                }
                Err(error) => return Err(format!("{vm}: {}", chain(&error)).into()),
            }
        }
        Ok(copies)
    }

    async fn set_pace(&self, paces: &BTreeMap<VmName, u64>) -> Outcome {
        let vms = &self.plan.vms;
        let changed = vms.iter().filter(|vm| paces.contains_key(&vm.vm));
        self.each(&self.source, changed, |vm| HostCall::Pace {
            vm: vm.vm.clone(),
            bandwidth: paces[&vm.vm],
        })
        .await
        .map(|_| ())
    }

    /// Lets the VMs run that were stopped in vain, and copies them from the beginning: most are
    /// ready, and those that are not may be any moment.
    async fn begin_anew(&self, copies: &Copies) -> Outcome {
        let late = copies.iter().filter(|(_, copy)| copy.state != READY);
        let late: Vec<_> = late.map(|(vm, _)| vm.as_str()).collect();
        let late = late.join(", ");
        self.doing(format!(
            "{late} took too long; the VMs run, to be copied anew"
        ));
        self.note(format!(
            "the VMs were stopped in vain, and copied anew: {late} took too long for the rest"
        ));
        self.copy_anew().await
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

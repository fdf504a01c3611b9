//! The memory of VMs that crossed before it.
//!
//! ```text
//!   source: what is left ─► destination, where the VM runs, and waits for pages that are missing
//!        │ the link breaks: both QEMUs pause ─► the destination listens anew ─► the source sends on
//!        ▼
//!   completed: nothing is done with the VM before that
//! ```
//! The QEMUs do this by themselves, whatever becomes of the daemons. There is no way back, and no end
//! but two: everything has followed, or one of both QEMUs has ended, and with it the VM. As long as
//! both are there it is worth waiting for the link, so it is waited for without a limit; a person
//! can end either VM.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Crew, Outcome};
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::effects::{CopyStatus, Crossing, HostCall, HostError, HostReply};
use crate::operation::plan::VmPlan;

/// How long the source is asked to wait before it says how far it is.
const LOOK_MS: u64 = 1000;
/// Between two tries to join a link that broke.
const PAUSE: Duration = Duration::from_secs(1);
/// QEMU's name of the state in which both ends wait for a new link.
const PAUSED: &str = "postcopy-paused";
/// The same of the one in which memory follows.
const ACTIVE: &str = "postcopy-active";
/// What is going on, said to people.
const FOLLOWS: &str = "the memory of the VMs follows";

impl Crew {
    pub(super) async fn postcopy(&self) -> Outcome {
        self.doing(FOLLOWS);
        let state = self.shown.borrow().state.clone();
        let arrived = self.plan.vms.iter().filter(|vm| state.has_arrived(&vm.vm));
        join_all(arrived.map(|vm| self.follow(vm))).await;
        let lost = self.plan.vms.iter().filter(|vm| self.is_lost(&vm.vm));
        join_all(lost.map(|vm| self.end_both(&vm.vm))).await;
        Ok(())
    }

    /// Returns when all of a VM is at the destination, or it is no more.
    async fn follow(&self, plan: &VmPlan) {
        let vm = &plan.vm;
        let mut broken: Option<Instant> = None;
        while !self.is_lost(vm) {
            let call = HostCall::Cross {
                vm: vm.clone(),
                limit_ms: LOOK_MS,
            };
            match self.source.call(call).await {
                Ok(HostReply::Crossed { crossing }) => {
                    self.crossed(vm, crossing.clone());
                    match crossing {
                        Crossing::Completed { .. } => {
                            self.joined(vm, broken.take());
                            return;
                        }
                        Crossing::Postcopy { copy } if copy.state == PAUSED => {
                            let since = *broken.get_or_insert_with(Instant::now);
                            self.rejoin(vm, &copy, since).await;
                            sleep(PAUSE).await;
                        }
                        Crossing::Postcopy { copy } if copy.state == ACTIVE => {
                            self.joined(vm, broken.take());
                        }
                        // A new link comes about.
                        Crossing::Postcopy { .. } => {}
                        Crossing::Stayed { .. } => sleep(PAUSE).await,
                    }
                }
                Err(HostError::Gone { how, .. }) => {
                    let forfeit = HostCall::Forfeit { vm: vm.clone() };
                    match self.destination.call(forfeit).await {
                        Ok(_) => return,
                        Err(HostError::Gone { .. }) => self.lose(vm, &how),
                        Err(_) => sleep(PAUSE).await,
                    }
                }
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Tells of a link that was broken.
    fn joined(&self, vm: &VmName, broken: Option<Instant>) {
        let Some(since) = broken else { return };
        self.note(format!(
            "the link broke while the memory of {vm} followed; it was joined again after {:.1} s",
            since.elapsed().as_secs_f64()
        ));
        self.doing(FOLLOWS);
    }

    /// Makes both QEMUs of a VM a new link. What fails is tried again by the caller.
    async fn rejoin(&self, vm: &VmName, copy: &CopyStatus, since: Instant) {
        let joined = async {
            let call = HostCall::Rejoin { vm: vm.clone() };
            let HostReply::Waiting { uri } = self.destination.call(call).await? else {
                return Ok(());
            };
            let vm = vm.clone();
            self.source
                .call(HostCall::SendOn { vm, uri })
                .await
                .map(drop)
        };
        let joined: Result<(), HostError> = joined.await;
        if let Err(HostError::Gone { how, .. }) = &joined {
            self.lose(vm, how);
        } else if let Err(error) = joined {
            self.doing(format!(
                "{vm} waits for {:.0} MB that its source has, and the link is broken for {:.0} s: \
                 {}; tried again until it is mended, or `symvirt vm stop {vm}` on either host gives \
                 the VM up",
                copy.remaining as f64 / 1e6,
                since.elapsed().as_secs_f64(),
                chain(&error)
            ));
        }
    }

    /// Ends what is left of a VM that is no more.
    async fn end_both(&self, vm: &VmName) {
        for host in [&self.source, &self.destination] {
            // It is lost either way, and said to be.
            let _ended = host.call(HostCall::Forfeit { vm: vm.clone() }).await;
        }
    }
}

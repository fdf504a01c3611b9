//! This host: its VMs, its HCAs, and what operations ask of it.
//!
//! | module | holds |
//! |---|---|
//! | [`claims`] | who has which HCA |
//! | [`reservations`] | what operations have reserved, on disk |
//! | [`leases`] | which operation has which gang |
//! | [`machine`] | one VM as the daemon holds it |
//! | [`lifecycle`] | start, stop, list, and taking up again after a restart |
//! | [`admission`] | whether VMs fit, before anything is changed |
//! | [`arriving`] | what a destination does |
//! | [`leaving`] | what a source does |
//! | [`orphans`] | what is left here by operations whose coordinators are gone |
//! | [`streams`] | how QEMU is told to migrate |
//!
//! Does not know about plans or phases: every [`HostCall`] stands for itself and can be repeated.

mod admission;
mod arriving;
mod claims;
mod leases;
mod leaving;
mod lifecycle;
mod machine;
mod orphans;
mod postcopy;
mod reservations;
mod streams;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;

use crate::api::error::chain;
use crate::config::{HcaName, HostConfig, VmName};
use crate::guest::Gangs;
use crate::operation::Denial;
use crate::operation::effects::{Host, HostCall, HostError, HostReply};
use crate::retry::Wishes;
use crate::vm::Vms;
use claims::Claims;
use machine::{Machine, Role};
use reservations::Reservations;

/// This host.
pub struct LocalHost {
    config: Arc<HostConfig>,
    vms: Vms,
    gangs: Arc<Gangs>,
    machines: Mutex<BTreeMap<VmName, Arc<Machine>>>,
    claims: Mutex<Claims>,
    /// Held while a VM is started or admitted: two may not get the same memory or HCA.
    admitting: tokio::sync::Mutex<()>,
    /// What gangs are to get later.
    pub wishes: Arc<Wishes>,
    /// Becomes true when the daemon lets its VMs go.
    ended: tokio::sync::watch::Sender<bool>,
}

impl LocalHost {
    /// The host of `config`, with no VMs taken up yet; see [`LocalHost::take_up`].
    ///
    /// # Errors
    /// Its reservations or retries cannot be read.
    pub fn new(config: Arc<HostConfig>, gangs: Arc<Gangs>) -> std::io::Result<Self> {
        let wishes = Arc::new(Wishes::load(config.state_dir.join("retries"))?);
        let reservations = Reservations::load(config.state_dir.join("reservations"))?;
        Ok(Self {
            vms: Vms::new(&config),
            config,
            gangs,
            machines: Mutex::default(),
            wishes,
            claims: Mutex::new(Claims::new(reservations)),
            admitting: tokio::sync::Mutex::default(),
            ended: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Whether the VM's QEMU is there. One that is not known here is nobody's loss.
    fn look(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let Some(machine) = self.machines().get(vm).cloned() else {
            return Ok(HostReply::Done);
        };
        match machine.ended() {
            None => Ok(HostReply::Done),
            Some(how) => Err(HostError::Gone {
                host: self.config.host.clone(),
                vm: vm.clone(),
                ran: !matches!(machine.role(), Role::Incoming { .. }),
                how,
            }),
        }
    }

    /// An operation of an earlier daemon has unplugged this HCA, and may plug it back.
    pub fn keep_for(&self, vm: &VmName, hca: &HcaName) {
        if self.machines().contains_key(vm) {
            self.claims().held.insert(hca.clone(), vm.clone());
        }
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<VmName, Arc<Machine>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self, vm: &VmName) -> Result<Arc<Machine>, HostError> {
        let machines = self.machines();
        machines.get(vm).cloned().ok_or_else(|| {
            HostError::Denied(Denial::UnknownVm {
                vm: vm.clone(),
                host: self.config.host.clone(),
                known: machines.keys().cloned().collect(),
            })
        })
    }

    fn failed(&self, error: &dyn std::error::Error) -> HostError {
        self.failure(chain(error))
    }

    fn failure(&self, reason: String) -> HostError {
        HostError::Failed {
            host: self.config.host.clone(),
            reason,
        }
    }

    async fn answer(&self, call: HostCall) -> Result<HostReply, HostError> {
        match call {
            HostCall::Admit { operation, vms } => self.admit(operation, vms).await,
            HostCall::Prepare {
                operation,
                vm,
                streams,
            } => self.prepare(operation, &vm, streams).await,
            HostCall::StillWaits { operation, vm } => self.still_waits(&operation, &vm).await,
            HostCall::Account { vm } => self.account(&vm).await,
            HostCall::Discard { operation, vm } => self.discard(&operation, &vm).await,
            HostCall::Release { operation } => {
                let removed = self.claims().reserved.remove(&operation);
                removed.map_err(|error| self.failed(&error))?;
                Ok(HostReply::Done)
            }
            HostCall::Resume { operation, vm } => self.resume(&operation, &vm).await,
            HostCall::Adopt {
                operation,
                gang,
                epoch,
                interconnect,
                agents,
                wish,
            } => {
                if let Some(wish) = wish.filter(|wish| wish.gang == gang) {
                    // The gang is to be taken over all the same.
                    if let Err(error) = self.wishes.put(wish) {
                        tracing::error!(%gang, %error, "keep a retry");
                    }
                }
                // All its VMs are here: nothing is on its way any more.
                let removed = self.claims().reserved.remove(&operation);
                removed.map_err(|error| self.failed(&error))?;
                self.adopt(&gang, epoch, interconnect, &agents).await;
                Ok(HostReply::Done)
            }
            HostCall::Plug { vm, hca } => self.plug(&vm, &hca).await,
            HostCall::Unplug { vm, limit_ms } => self.unplug(&vm, limit_ms).await,
            HostCall::StartCopy {
                vm,
                to,
                uri,
                bandwidth,
                streams,
                throttle,
            } => {
                let source = streams::Source {
                    bandwidth,
                    streams,
                    throttle,
                };
                self.start_copy(&vm, &to, uri, source).await
            }
            HostCall::CopyStatus { vm } => self.copy_status(&vm),
            HostCall::Pace { vm, bandwidth } => self.pace(&vm, bandwidth).await,
            HostCall::Stop { vm, postcopy } => self.stop_for_crossing(&vm, postcopy).await,
            HostCall::CancelCopy { vm } => self.cancel_copy(&vm).await,
            HostCall::Cross { vm, limit_ms } => self.cross(&vm, limit_ms).await,
            HostCall::Rejoin { vm } => self.rejoin(&vm).await,
            HostCall::SendOn { vm, uri } => self.send_on(&vm, uri).await,
            HostCall::Forfeit { vm } => self.forfeit(&vm).await,
            HostCall::Retire { vm } => self.retire(&vm).await,
            HostCall::Reclaim { vm } => self.reclaim(&vm).await,
            HostCall::Look { vm } => self.look(&vm),
            HostCall::Coordinates { operation } => self.coordinates(&operation),
        }
    }
}

impl Host for LocalHost {
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        Box::pin(async move {
            let vm = call.vm().cloned();
            let answer = self.answer(call).await;
            // Why it was not done may be that nobody is there to do it.
            match (answer, vm) {
                (Err(error @ HostError::Failed { .. }), Some(vm)) => self.look(&vm).and(Err(error)),
                (answer, _) => answer,
            }
        })
    }
}

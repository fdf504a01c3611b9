//! This host: its VMs, its HCAs, and what operations ask of it.
//!
//! | module | holds |
//! |---|---|
//! | [`claims`] | who has which HCA, reservations of operations |
//! | [`machine`] | one VM as the daemon holds it |
//! | [`lifecycle`] | start, stop, list, and taking up again after a restart |
//! | [`admission`] | whether VMs fit, before anything is changed |
//! | [`arriving`] | what a destination does |
//! | [`leaving`] | what a source does |
//!
//! Does not know about plans or phases: every [`HostCall`] stands for itself and can be repeated.

mod admission;
mod arriving;
mod claims;
mod leaving;
mod lifecycle;
mod machine;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;

use crate::api::error::chain;
use crate::config::{HostConfig, VmName};
use crate::guest::Gangs;
use crate::operation::Denial;
use crate::operation::effects::{Host, HostCall, HostError, HostReply};
use crate::vm::Vms;
use claims::Claims;
use machine::Machine;

/// This host.
pub struct LocalHost {
    config: Arc<HostConfig>,
    vms: Vms,
    gangs: Arc<Gangs>,
    machines: Mutex<BTreeMap<VmName, Arc<Machine>>>,
    claims: Mutex<Claims>,
    /// Held while a VM is started or admitted: two may not get the same memory or HCA.
    admitting: tokio::sync::Mutex<()>,
    /// Becomes true when the daemon lets its VMs go.
    ended: tokio::sync::watch::Sender<bool>,
}

impl LocalHost {
    /// The host of `config`, with no VMs taken up yet; see [`LocalHost::take_up`].
    pub fn new(config: Arc<HostConfig>, gangs: Arc<Gangs>) -> Self {
        Self {
            vms: Vms::new(&config),
            config,
            gangs,
            machines: Mutex::default(),
            claims: Mutex::default(),
            admitting: tokio::sync::Mutex::default(),
            ended: tokio::sync::watch::Sender::new(false),
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
            HostCall::Prepare { operation, vm } => self.prepare(operation, &vm).await,
            HostCall::StillWaits { operation, vm } => self.still_waits(&operation, &vm).await,
            HostCall::Discard { operation, vm } => self.discard(&operation, &vm).await,
            HostCall::Release { operation } => {
                self.claims().reserved.remove(&operation);
                Ok(HostReply::Done)
            }
            HostCall::Resume { operation, vm } => self.resume(&operation, &vm).await,
            HostCall::Adopt {
                gang,
                epoch,
                interconnect,
                agents,
                ..
            } => {
                self.adopt(&gang, epoch, interconnect, &agents).await;
                Ok(HostReply::Done)
            }
            HostCall::Plug { vm, hca } => self.plug(&vm, &hca).await,
            HostCall::Unplug { vm, limit_ms } => self.unplug(&vm, limit_ms).await,
            HostCall::StartCopy {
                vm,
                uri,
                downtime_ms,
                bandwidth,
            } => self.start_copy(&vm, uri, downtime_ms, bandwidth).await,
            HostCall::CopyStatus { vm } => self.copy_status(&vm),
            HostCall::Pace { vm, bandwidth } => self.pace(&vm, bandwidth).await,
            HostCall::Stop { vm } => self.stop_for_crossing(&vm).await,
            HostCall::CancelCopy { vm } => self.cancel_copy(&vm).await,
            HostCall::Cross { vm, limit_ms } => self.cross(&vm, limit_ms).await,
            HostCall::Retire { vm } => self.retire(&vm).await,
        }
    }
}

impl Host for LocalHost {
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        Box::pin(self.answer(call))
    }
}

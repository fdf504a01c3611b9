//! Start, stop and list VMs, and take them up again after the daemon was restarted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tracing::{info, warn};

use super::LocalHost;
use super::machine::{Machine, Role, read_role};
use crate::api::error::chain;
use crate::api::model::{AgentInfo, VmInfo, VmState};
use crate::config::{GangName, HcaName, VmName, VmSpec};
use crate::guest::AgentView;
use crate::operation::Denial;
use crate::operation::effects::HostError;
use crate::vm::{Instance, Origin, hca};

/// How long a QEMU may take to end after each request to do so.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);

/// Monitors that are asked at the same time.
const AT_A_TIME: usize = 64;

impl LocalHost {
    /// Finds the VMs that an earlier daemon has started, and opens their guest channels.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub async fn take_up(self: &Arc<Self>) -> Result<(), HostError> {
        let listing = self.vms.list().map_err(|error| self.failed(&error))?;
        for error in &listing.unreadable {
            warn!(
                error = chain(error),
                "a VM's record cannot be read; nothing is done to it"
            );
        }
        for instance in listing.instances {
            let vm = instance.vm().clone();
            let role = match read_role(&instance) {
                Ok(Some(role)) => role,
                Ok(None) => {
                    self.end_nobodys(instance).await;
                    continue;
                }
                Err(error) => {
                    warn!(%vm, %error, "the VM's role cannot be read; nothing is done to it");
                    continue;
                }
            };
            if let Some(plugged) = &instance.record().hca {
                self.claims().held.insert(plugged.hca.clone(), vm.clone());
            }
            let alive = instance.is_alive().unwrap_or(true);
            let machine = Arc::new(Machine::new(instance, None, role.clone()));
            self.machines().insert(vm.clone(), machine.clone());
            let role = match role {
                // The earlier daemon was told to run it, did so, and ended before it wrote that
                // down: it is the one copy that runs.
                Role::Incoming { .. } if alive && machine.state().await == VmState::Running => {
                    machine
                        .set_role(Role::Own)
                        .map_err(|error| self.failed(&error))?;
                    Role::Own
                }
                role => role,
            };
            info!(%vm, alive, ?role, "VM taken up");
            if alive && role == Role::Own {
                // One that came here by an operation under way is spoken to by that's coordinator.
                if !self.claims().is_arriving(&vm) {
                    self.gangs
                        .attach(&machine.spec.gang, &vm, &self.config.host);
                }
                self.watch(machine);
            }
        }
        Ok(())
    }

    /// A QEMU that was started to wait, and whose daemon ended before it wrote down for whom: it
    /// runs nothing, and will be started again if it is wanted.
    async fn end_nobodys(&self, instance: Instance) {
        let vm = instance.vm().clone();
        let ended = match instance.stop(None, STOP_GRACE).await {
            Ok(()) => self.vms.clear(&instance).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => info!(%vm, "a QEMU that waited for nobody was ended"),
            Err(error) => warn!(%vm, error = chain(&error), "a QEMU that waits for nobody is left"),
        }
    }

    /// Starts a VM, plugs the HCA that it wants, and opens its guest channel.
    ///
    /// # Errors
    /// [`HostError::Denied`] before anything is changed; [`HostError::Failed`] when it could not
    /// be started: nothing is left of it.
    pub async fn start(self: &Arc<Self>, spec: VmSpec) -> Result<VmInfo, HostError> {
        let _one_at_a_time = self.admitting.lock().await;
        self.check_spec(&spec)?;
        self.check_room(std::slice::from_ref(&spec))?;
        let claimed = self.claim_one(&spec)?;
        let origin = if spec.template.is_some() {
            Origin::Template
        } else {
            Origin::Boot
        };
        let started = self.vms.start(&spec, origin).await;
        let (instance, client) = match started {
            Ok(started) => started,
            Err(error) => {
                self.claims().release(&spec.name);
                return Err(self.failed(&error));
            }
        };
        let machine = Arc::new(Machine::new(instance, Some(client), Role::Own));
        self.machines().insert(spec.name.clone(), machine.clone());
        if let Some(hca) = claimed
            && let Err(error) = self.plug(&spec.name, &hca).await
        {
            if let Err(leftover) = self.end(&machine).await {
                warn!(vm = %spec.name, error = chain(&leftover), "parts of the VM are left behind");
            }
            return Err(error);
        }
        self.gangs.attach(&spec.gang, &spec.name, &self.config.host);
        self.watch(machine.clone());
        info!(vm = %spec.name, gang = %spec.gang, "VM started");
        Ok(self.describe(&machine).await)
    }

    fn claim_one(&self, spec: &VmSpec) -> Result<Option<HcaName>, HostError> {
        if spec.hca.is_none() {
            return Ok(None);
        }
        let mut claims = self.claims();
        match claims.free_hcas(&self.config).into_iter().next() {
            Some(hca) => {
                claims.held.insert(hca.clone(), spec.name.clone());
                Ok(Some(hca))
            }
            None => Err(HostError::Denied(Denial::NoHca {
                host: self.config.host.clone(),
                vm: spec.name.clone(),
                taken: claims.held.clone().into_iter().collect(),
            })),
        }
    }

    /// Ends a VM at once, and removes what it had on this host.
    ///
    /// # Errors
    /// [`HostError::Denied`] for an unknown one; [`HostError::Failed`] says what is left.
    pub async fn stop(&self, vm: &VmName) -> Result<(), HostError> {
        let machine = self.machine(vm)?;
        self.end(&machine).await
    }

    /// Ends the QEMU, removes its files and taps, gives back its HCA.
    pub(super) async fn end(&self, machine: &Arc<Machine>) -> Result<(), HostError> {
        let vm = machine.spec.name.clone();
        // A QEMU that does not greet is ended by signals.
        let client = tokio::time::timeout(STOP_GRACE, machine.client()).await;
        let client = client.ok().and_then(Result::ok);
        let instance = machine.instance.lock().await;
        instance
            .stop(client.as_ref(), STOP_GRACE)
            .await
            .map_err(|error| self.failed(&error))?;
        self.vms
            .clear(&instance)
            .await
            .map_err(|error| self.failed(&error))?;
        drop(instance);
        self.machines().remove(&vm);
        self.claims().release(&vm);
        if machine.role() == Role::Own {
            self.gangs.detach(&machine.spec.gang, &vm, true);
            self.forget_empty(&machine.spec.gang);
        }
        info!(%vm, "VM ended");
        Ok(())
    }

    /// Forgets a gang that has no VM here any more.
    pub(super) fn forget_empty(&self, gang: &GangName) {
        let any = self
            .machines()
            .values()
            .any(|machine| machine.spec.gang == *gang);
        if !any {
            self.gangs.forget(gang);
        }
    }

    /// Tells the gang when a QEMU ends by itself.
    pub(super) fn watch(self: &Arc<Self>, machine: Arc<Machine>) {
        let host = Arc::downgrade(self);
        let mut ended = self.ended.subscribe();
        tokio::spawn(async move {
            loop {
                let Ok(client) = machine.client().await else {
                    break;
                };
                let reason = tokio::select! {
                    reason = client.closed() => reason,
                    _ = ended.wait_for(|ended| *ended) => return,
                };
                // Over by our own doing, or a monitor that can be connected to again.
                if machine.state().await == VmState::Dead {
                    break;
                }
                tracing::debug!(vm = %machine.spec.name, %reason, "monitor connection ended");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let Some(host) = host.upgrade() else { return };
            let known = host.machines().get(&machine.spec.name).cloned();
            let still = known.is_some_and(|known| Arc::ptr_eq(&known, &machine));
            if still && machine.role() == Role::Own {
                warn!(vm = %machine.spec.name, "QEMU has ended by itself");
                host.gangs
                    .detach(&machine.spec.gang, &machine.spec.name, true);
            }
        });
    }

    /// Lets go of all VMs, which run on: closes monitors and guest channels, so that the next
    /// daemon can open them.
    pub async fn let_go(&self) {
        self.ended.send_replace(true);
        self.gangs.forget_all();
        let machines = std::mem::take(&mut *self.machines());
        for machine in machines.into_values() {
            machine.let_go().await;
        }
    }

    /// The VMs of this host, by name.
    pub async fn list(&self) -> Vec<VmInfo> {
        let machines: Vec<_> = self.machines().values().cloned().collect();
        let described = machines
            .into_iter()
            .map(|machine| async move { self.describe(&machine).await });
        // One that does not answer must not keep the others waiting, nor a thousand come at once.
        stream::iter(described).buffered(AT_A_TIME).collect().await
    }

    async fn describe(&self, machine: &Machine) -> VmInfo {
        let spec = &machine.spec;
        let view = self.gangs.get(&spec.gang).map(|gang| gang.view());
        let agent = view.and_then(|view| view.guests.get(&spec.name).cloned());
        let agent = match agent.unwrap_or_default().agent {
            AgentView::Silent => AgentInfo::Silent,
            AgentView::Present { guest, version } => AgentInfo::Present { guest, version },
            AgentView::Incompatible(reason) => AgentInfo::Incompatible { reason },
        };
        let hca = match machine.instance.try_lock() {
            Ok(instance) => instance
                .record()
                .hca
                .as_ref()
                .map(|plugged| plugged.hca.clone()),
            // About to be plugged or unplugged.
            Err(_) => self.claims().of(&spec.name),
        };
        VmInfo {
            name: spec.name.clone(),
            gang: spec.gang.clone(),
            state: machine.state().await,
            pid: machine.pid,
            memory: spec.memory,
            hca,
            agent,
            directory: machine.directory.clone(),
        }
    }

    /// The specifications of the gang's VMs on this host.
    pub fn specs(&self, gang: &GangName) -> Vec<VmSpec> {
        let machines = self.machines();
        let of = machines
            .values()
            .filter(|machine| machine.spec.gang == *gang);
        of.map(|machine| machine.spec.clone()).collect()
    }

    /// The gangs with VMs on this host.
    pub fn gang_names(&self) -> Vec<GangName> {
        let mut names: Vec<_> = self
            .machines()
            .values()
            .map(|machine| machine.spec.gang.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The socket of a VM's guest channel.
    pub fn channel_socket(&self, vm: &VmName) -> Option<std::path::PathBuf> {
        let machine = self.machines().get(vm).cloned()?;
        let files = crate::vm::instance::Files::in_directory(machine.directory.clone());
        Some(files.channel())
    }

    /// Plugs an HCA of this host's pool into a VM.
    pub(super) async fn plug(
        &self,
        vm: &VmName,
        hca: &HcaName,
    ) -> Result<crate::operation::effects::HostReply, HostError> {
        let machine = self.machine(vm)?;
        let config = self.config.hcas.iter().find(|config| config.name() == hca);
        let Some(config) = config else {
            return Err(self.failure(format!("there is no HCA {hca} in the pool")));
        };
        let Some(request) = &machine.spec.hca else {
            return Err(self.failure(format!("{vm} wants no HCA")));
        };
        {
            let mut claims = self.claims();
            if let Some(holder) = claims.held.get(hca).filter(|holder| *holder != vm) {
                return Err(self.failure(format!("HCA {hca} is {holder}'s")));
            }
            claims.held.insert(hca.clone(), vm.clone());
        }
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let mut instance = machine.instance.lock().await;
        hca::attach(&mut instance, &client, config, request.mac)
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(crate::operation::effects::HostReply::Done)
    }

    /// Unplugs a VM's HCA. The claim stays: it may have to be plugged back.
    pub(super) async fn unplug(
        &self,
        vm: &VmName,
        limit_ms: u64,
    ) -> Result<crate::operation::effects::HostReply, HostError> {
        let machine = self.machine(vm)?;
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let mut instance = machine.instance.lock().await;
        let limit = Duration::from_millis(limit_ms);
        hca::detach(&mut instance, &client, limit)
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(crate::operation::effects::HostReply::Done)
    }
}

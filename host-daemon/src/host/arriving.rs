//! What a destination does: wait for a VM, run it once its source has completed, or give up.

use std::sync::Arc;
use std::time::Duration;

use symvirt_qmp::migration::{Endpoint, Incoming, MigrateError, Settings, query};
use symvirt_qmp::{Client, commands};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::LocalHost;
use super::machine::{Machine, Role};
use super::streams::settings;
use crate::api::error::chain;
use crate::api::model::VmState;
use crate::config::{GangName, VmName};
use crate::guest::Gang;
use crate::operation::effects::{Guests, HostError, HostReply, Streams};
use crate::operation::{Denial, Limits, OperationId, Target};
use crate::vm::{Origin, credentials};

/// For the rest of the state to be loaded after the source has completed.
const LOADING: Duration = Duration::from_secs(30);
/// For a QEMU whose stream has ended to have noticed it.
const FAILING: Duration = Duration::from_secs(1);
/// Interval of looking whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// For agents to be heard after a gang was taken over.
const HEARING: Duration = Duration::from_secs(30);
/// For the VM to run after it was told to.
const RESUMING: Duration = Duration::from_secs(10);

impl LocalHost {
    /// Starts a QEMU that waits for the stream of an admitted VM.
    pub(super) async fn prepare(
        &self,
        operation: OperationId,
        vm: &VmName,
        streams: Streams,
    ) -> Result<HostReply, HostError> {
        let reserved = self.claims().reserved.of(&operation).cloned();
        let reserved = reserved.unwrap_or_default();
        let Some(spec) = reserved.vms.iter().find(|spec| spec.name == *vm).cloned() else {
            return Err(self.failure(format!("{vm} was not admitted for {operation}")));
        };
        let role = Role::Incoming { operation };
        let known = self.machines().get(vm).cloned();
        let machine = match known {
            Some(machine) if machine.role() == role => machine,
            Some(_) => return Err(self.failure(format!("there is a VM {vm} already"))),
            None => {
                let started = self.vms.start(&spec, Origin::Incoming).await;
                let (instance, client) = started.map_err(|error| self.failed(&error))?;
                let machine = Arc::new(Machine::new(instance, Some(client), role.clone()));
                self.machines().insert(vm.clone(), machine.clone());
                machine
                    .set_role(role)
                    .map_err(|error| self.failed(&error))?;
                machine
            }
        };
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let mut incoming = machine.incoming.lock().await;
        let at = Endpoint::Tcp {
            host: self.migration_host(),
            port: 0,
        };
        // An earlier daemon may have let it listen.
        let known = incoming
            .take()
            .unwrap_or_else(|| Incoming::attach(&client, &at));
        let mut port = known.port().await.map_err(|error| self.failed(&error))?;
        let listening = match port {
            Some(_) => known,
            None => {
                let mut settings = settings(streams);
                let end = credentials::End::Server(&self.config.peers);
                self.secure(&client, &machine, end, &mut settings).await?;
                let listening = Incoming::listen(&client, &at, &settings).await;
                let listening = listening.map_err(|error| self.failed(&error))?;
                port = listening
                    .port()
                    .await
                    .map_err(|error| self.failed(&error))?;
                listening
            }
        };
        *incoming = Some(listening);
        match port {
            Some(port) => {
                let uri = Endpoint::Tcp {
                    host: self.migration_host(),
                    port,
                }
                .to_string();
                Ok(HostReply::Waiting { uri })
            }
            None => Err(self.failure(format!("QEMU does not say where it waits for {vm}"))),
        }
    }

    /// Between hosts that know each other by certificates, their QEMUs do, too.
    pub(super) async fn secure(
        &self,
        client: &Client,
        machine: &Machine,
        end: credentials::End<'_>,
        settings: &mut Settings,
    ) -> Result<(), HostError> {
        let Some(files) = &self.config.tls else {
            return Ok(());
        };
        let instance = &machine.directory;
        let installed = credentials::install(client, instance, files, end, settings).await;
        installed.map_err(|error| self.failed(&error))
    }

    pub(super) fn migration_host(&self) -> String {
        let listening = self.config.listen.map(|address| address.ip());
        let address = self.config.migration_address.or(listening);
        address.map_or("127.0.0.1".to_owned(), |address| address.to_string())
    }

    /// The last check before the source is let go.
    pub(super) async fn still_waits(
        &self,
        operation: &OperationId,
        vm: &VmName,
    ) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        let expected = Role::Incoming {
            operation: operation.clone(),
        };
        match machine.state().await {
            VmState::Incoming if machine.role() == expected => Ok(HostReply::Done),
            state => Err(self.failure(format!("the QEMU that waits for {vm} is {state}"))),
        }
    }

    /// What the QEMU that waits says of its stream, which broke off: why it failed here, which the
    /// source sees as a connection that was closed; or what it printed before it ended.
    pub(super) async fn account(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        let said = match machine.ended() {
            Some(how) => format!("its QEMU has ended: {how}"),
            None => self.account_of(&machine).await?,
        };
        Ok(HostReply::Account { said })
    }

    async fn account_of(&self, machine: &Machine) -> Result<String, HostError> {
        let client = machine.client().await;
        let client = client.map_err(|error| self.failed(&error))?;
        let deadline = Instant::now() + FAILING;
        loop {
            let progress = query(&client).await.map_err(|error| self.failed(&error))?;
            if let Some(reason) = progress.error {
                return Ok(reason);
            }
            if progress.is_over() || Instant::now() >= deadline {
                break;
            }
            // The source may have seen it first.
            sleep(LOOK).await;
        }
        Ok(machine.instance.lock().await.files.log_tail())
    }

    /// Runs a VM that arrived here without being told to run, on an operator's word that its
    /// source is stopped for good.
    ///
    /// # Errors
    /// [`HostError::Denied`] for a VM that is not one of those.
    pub async fn resume_arrived(self: &Arc<Self>, vm: &VmName) -> Result<(), HostError> {
        let machine = self.machine(vm)?;
        let state = machine.state().await;
        if !matches!(machine.role(), Role::Incoming { .. }) || state != VmState::Paused {
            return Err(HostError::Denied(Denial::NotArrived {
                vm: vm.clone(),
                state: state.to_string(),
            }));
        }
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let run = client.execute(commands::cont {}).await;
        run.map_err(|error| self.failed(&error))?;
        machine
            .set_role(Role::Own)
            .map_err(|error| self.failed(&error))?;
        self.gangs.attach(&machine.spec.gang, vm, &self.config.host);
        self.watch(machine);
        Ok(())
    }

    /// Ends a QEMU that waits.
    pub(super) async fn discard(
        &self,
        operation: &OperationId,
        vm: &VmName,
    ) -> Result<HostReply, HostError> {
        let Some(machine) = self.machines().get(vm).cloned() else {
            return Ok(HostReply::Done);
        };
        match machine.role() {
            Role::Incoming { operation: of } if of == *operation => {}
            Role::Incoming { .. } | Role::Own | Role::Serving | Role::Crossed => {
                return Err(self.failure(format!("{vm} does not wait here for {operation}")));
            }
        }
        self.end(&machine).await?;
        Ok(HostReply::Done)
    }

    /// Runs a VM whose source has completed, or serves it the rest of its memory.
    pub(super) async fn resume(
        self: &LocalHost,
        operation: &OperationId,
        vm: &VmName,
    ) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        match machine.role() {
            Role::Incoming { operation: of } if of == *operation => {}
            // Repeated after a lost answer, or a restart in the middle.
            Role::Own => {
                self.see_it_run(&machine).await?;
                return Ok(HostReply::Resumed { at_us: None });
            }
            Role::Incoming { .. } | Role::Serving | Role::Crossed => {
                return Err(self.failure(format!("{vm} does not wait here for {operation}")));
            }
        }
        let loaded = {
            let mut incoming = machine.incoming.lock().await;
            let unnamed = Endpoint::Uri("the source".into());
            incoming
                .get_or_insert_with(|| Incoming::attach(&client, &unnamed))
                .loaded(LOADING)
                .await
        };
        if let Err(error) = loaded {
            let MigrateError::Failed { .. } = &error else {
                return Err(self.failed(&error));
            };
            // It holds nothing that could ever run.
            let how = chain(&error);
            self.end(&machine).await?;
            return Err(HostError::Gone {
                host: self.config.host.clone(),
                vm: vm.clone(),
                ran: false,
                how,
            });
        }
        // Before it runs: a QEMU that ends while it is `Incoming` has never run the VM. One that
        // is found stopped is run by this call's repetition.
        machine
            .set_role(Role::Own)
            .map_err(|error| self.failed(&error))?;
        let mut events = client.subscribe();
        client
            .execute(commands::cont {})
            .await
            .map_err(|error| self.failed(&error))?;
        let resumed = events.wait("RESUME", RESUMING, |event| {
            (event.name == "RESUME").then_some(event.timestamp)
        });
        let at_us = resumed.await.ok().flatten().as_ref().map(micros);
        info!(%vm, %operation, "VM has arrived and runs");
        Ok(HostReply::Resumed { at_us })
    }

    /// Takes over the coordination of a gang whose VMs are here, and waits until its agents have
    /// said who their ranks are: an operation that began before would know of none. What they
    /// remember of a switch is brought to its end; a gang that is held is given transports.
    pub(super) async fn adopt(
        &self,
        gang: &GangName,
        epoch: u64,
        interconnect: Target,
        agents: &[VmName],
    ) {
        let coordinated = self.gangs.take_over(gang, epoch, interconnect);
        let here: Vec<_> = {
            let machines = self.machines();
            let of =
                |machine: &&Arc<Machine>| machine.spec.gang == *gang && machine.role() == Role::Own;
            machines
                .values()
                .filter(of)
                .map(|machine| machine.spec.name.clone())
                .collect()
        };
        for vm in &here {
            coordinated.attach(vm, &self.config.host);
        }
        let expected: Vec<_> = agents
            .iter()
            .filter(|vm| here.contains(vm))
            .cloned()
            .collect();
        match coordinated.recover(&expected, HEARING).await {
            Ok(standing) if standing.held => open_held(gang.clone(), coordinated),
            Ok(_) => {}
            Err(failure) => warn!(%gang, %failure, "a gang is taken over as it stands"),
        }
    }
}

/// A gang that its last coordinator could give no transports is given those that need no HCA. Nobody
/// waits for that: what is short of it, `symvirt switch` does.
fn open_held(gang: GangName, coordinated: Gang) {
    tokio::spawn(async move {
        let limit = Limits::default().switch();
        match coordinated.rebuild(Target::Fallback, limit).await {
            Ok(_) => info!(%gang, "a gang that was handed over held runs again"),
            Err(failure) => warn!(
                %gang, %failure,
                "a gang that was handed over held stands still: `symvirt switch {gang} --to fallback`"
            ),
        }
    });
}

/// Microseconds since 1970; 0 if QEMU's clock failed.
pub(super) fn micros(at: &symvirt_qmp::Timestamp) -> u64 {
    let micros = at
        .seconds
        .saturating_mul(1_000_000)
        .saturating_add(at.microseconds);
    u64::try_from(micros).unwrap_or(0)
}

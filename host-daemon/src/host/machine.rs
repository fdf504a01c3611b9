//! One VM of this host as the daemon holds it: its record, its monitor, its migration.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use symvirt_qmp::migration::{Incoming, Outgoing};
use symvirt_qmp::{Client, commands};

use crate::api::model::VmState;
use crate::config::VmSpec;
use crate::kept;
use crate::operation::OperationId;
use crate::vm::{Instance, Origin};

/// In the directory of the instance.
const ROLE: &str = "role.json";

/// What a QEMU is to this host. Kept on disk: whether a VM may be run here depends on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub(super) enum Role {
    /// The VM runs here, or would.
    Own,
    /// It waits for a VM.
    Incoming {
        /// Of which operation.
        operation: OperationId,
    },
    /// Its VM has crossed before the rest of its memory, which follows from here; it is never to run
    /// again.
    Serving,
    /// Its VM has crossed; it is never to run again.
    Crossed,
}

/// One VM of this host.
pub(super) struct Machine {
    pub spec: VmSpec,
    /// Held while a device is plugged or unplugged.
    pub instance: tokio::sync::Mutex<Instance>,
    pub directory: PathBuf,
    pub pid: Option<u32>,
    /// The copy to another host, if one was begun.
    pub outgoing: Mutex<Option<Arc<Outgoing>>>,
    /// The stream from another host, until the VM runs.
    pub incoming: tokio::sync::Mutex<Option<Incoming>>,
    role: Mutex<Role>,
    client: tokio::sync::Mutex<Option<Client>>,
}

impl Machine {
    pub fn new(instance: Instance, client: Option<Client>, role: Role) -> Self {
        let pid = instance
            .record()
            .process
            .as_ref()
            .map(|process| process.pid);
        Self {
            spec: instance.record().spec.clone(),
            directory: instance.files.directory().to_owned(),
            pid: pid.and_then(|pid| u32::try_from(pid).ok()),
            instance: tokio::sync::Mutex::new(instance),
            outgoing: Mutex::default(),
            incoming: tokio::sync::Mutex::default(),
            role: Mutex::new(role),
            client: tokio::sync::Mutex::new(client),
        }
    }

    /// Its monitor, connected anew if the connection has ended.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn client(&self) -> Result<Client, symvirt_qmp::Error> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let instance = self.instance.lock().await.clone();
        let connected = instance.connect().await?;
        *client = Some(connected.clone());
        Ok(connected)
    }

    /// Closes the connection to its monitor.
    pub async fn let_go(&self) {
        self.client.lock().await.take();
        self.incoming.lock().await.take();
        self.outgoing().take();
    }

    pub fn role(&self) -> Role {
        self.role
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the role, on disk before in memory.
    ///
    /// # Errors
    /// Those of the file system; the role is as before, or as wanted.
    pub fn set_role(&self, role: Role) -> io::Result<()> {
        kept::replace(&self.directory.join(ROLE), &role)?;
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
        Ok(())
    }

    pub fn outgoing(&self) -> MutexGuard<'_, Option<Arc<Outgoing>>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How its QEMU ended, if it has.
    pub fn ended(&self) -> Option<String> {
        // While somebody works with it, nobody knows.
        let instance = self.instance.try_lock().ok()?;
        let gone = !instance.is_alive().unwrap_or(true);
        gone.then(|| match instance.files.log_tail() {
            silent if silent.is_empty() => "it was killed, or ended without a word".to_owned(),
            log => log,
        })
    }

    /// What its QEMU does.
    pub async fn state(&self) -> VmState {
        let alive = match self.instance.try_lock() {
            Ok(instance) => instance.is_alive().unwrap_or(true),
            // Somebody works with it.
            Err(_) => true,
        };
        if !alive {
            return VmState::Dead;
        }
        let Ok(client) = self.client().await else {
            return VmState::Unresponsive;
        };
        match client.execute(commands::query_status {}).await {
            Ok(status) if status.running => VmState::Running,
            Ok(status) => match status.status {
                commands::RunState::inmigrate => VmState::Incoming,
                commands::RunState::postmigrate => VmState::Migrated,
                _ if matches!(self.role(), Role::Crossed | Role::Serving) => VmState::Migrated,
                _ => VmState::Paused,
            },
            Err(_) => VmState::Unresponsive,
        }
    }
}

/// Reads the role of an instance. One that was never written is that of a VM started here, unless
/// it was started to wait: `None`, nobody knows for whom.
///
/// # Errors
/// Those of the file system, or that the file is not a role.
pub(super) fn read_role(instance: &Instance) -> io::Result<Option<Role>> {
    match std::fs::read(instance.files.directory().join(ROLE)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let own = instance.record().origin != Origin::Incoming;
            Ok(own.then_some(Role::Own))
        }
        Err(error) => Err(error),
    }
}

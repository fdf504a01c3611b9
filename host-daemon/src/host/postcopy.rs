//! What both ends do for a VM that crossed before the rest of its memory.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use symvirt_qmp::migration::{Endpoint, Incoming, MigrateError, Outgoing, Status, query};
use tracing::{info, warn};

use super::LocalHost;
use super::leaving::status;
use super::machine::{Machine, Role};
use crate::api::error::chain;
use crate::config::VmName;
use crate::operation::effects::{Crossing, HostError, HostReply};

/// For a QEMU to say what it knows of a VM: one that waits for a page that never comes does not.
const ANSWERING: Duration = Duration::from_secs(10);

impl LocalHost {
    /// Source: waits until all has followed, the link has broken, or `limit` is over.
    pub(super) async fn follow(
        &self,
        machine: &Machine,
        outgoing: &Outgoing,
        limit: Duration,
    ) -> Result<HostReply, HostError> {
        let pauses = |status| matches!(status, Status::completed | Status::postcopy_paused);
        let seen = outgoing.wait_until(limit, |progress| pauses(progress.status));
        let progress = match seen.await {
            Ok(progress) if progress.is_over() => return self.completed(machine, &progress),
            Ok(progress) => progress,
            Err(MigrateError::Timeout { .. }) => outgoing.progress().borrow().clone(),
            // It never runs here again, and has nothing more to give.
            Err(error @ (MigrateError::Failed { .. } | MigrateError::Cancelled { .. })) => {
                return Err(self.gone(&machine.spec.name, chain(&error)));
            }
            Err(error) => return Err(self.failed(&error)),
        };
        let copy = status(&progress);
        let crossing = Crossing::Postcopy { copy };
        Ok(HostReply::Crossed { crossing })
    }

    /// Destination: listens anew for the source of a VM that runs here.
    pub(super) async fn rejoin(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        let at = self.listen_anew(&machine).await?;
        info!(%vm, "listens for the rest of a VM whose link broke");
        let uri = at.to_string();
        Ok(HostReply::Waiting { uri })
    }

    async fn listen_anew(&self, machine: &Machine) -> Result<Endpoint, HostError> {
        let client = machine.client().await;
        let client = client.map_err(|error| self.failed(&error))?;
        let host = self.migration_host();
        let port = free_port(&host).map_err(|error| self.failed(&error))?;
        let at = Endpoint::Tcp { host, port };
        let listening = Incoming::attach(&client, &at).rejoin(&at).await;
        listening.map_err(|error| self.failed(&error))?;
        Ok(at)
    }

    /// Source: sends on what is left of a VM that has crossed.
    pub(super) async fn send_on(&self, vm: &VmName, uri: String) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        if machine.role() != Role::Serving {
            return Err(self.failure(format!("nothing more of {vm} follows from here")));
        }
        let outgoing = self.copy_of(&machine).await?;
        let joined = outgoing.rejoin(&Endpoint::Uri(uri)).await;
        joined.map_err(|error| self.failed(&error))?;
        Ok(HostReply::Done)
    }

    /// Either end: the other's QEMU has ended. Ends this one, unless it has all of the VM.
    pub(super) async fn forfeit(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        match machine.role() {
            Role::Incoming { .. } | Role::Crossed => return Ok(HostReply::Done),
            Role::Own | Role::Serving if machine.ended().is_some() => {
                return self.look(vm);
            }
            Role::Serving => {}
            // Only one that lacks something listens.
            Role::Own => {
                if let Err(refused) = self.listen_anew(&machine).await {
                    return match has_all(&machine).await {
                        true => Ok(HostReply::Done),
                        false => Err(refused),
                    };
                }
            }
        }
        warn!(%vm, "a VM is given up whose memory will never be whole");
        self.end(&machine).await?;
        Err(self.gone(vm, "the rest of its memory will never come".into()))
    }

    fn gone(&self, vm: &VmName, how: String) -> HostError {
        HostError::Gone {
            host: self.config.host.clone(),
            vm: vm.clone(),
            ran: true,
            how,
        }
    }
}

/// Whether everything has followed of a VM that runs here.
async fn has_all(machine: &Arc<Machine>) -> bool {
    let asked = async {
        let client = machine.client().await.ok()?;
        query(&client).await.ok()
    };
    let progress = tokio::time::timeout(ANSWERING, asked).await.ok().flatten();
    progress.is_some_and(|progress| progress.status == Status::completed)
}

/// A port that was free a moment ago. QEMU could choose one, but says which only when its main loop
/// runs, which a VM that waits for a page may keep from it.
fn free_port(host: &str) -> std::io::Result<u16> {
    let address: IpAddr = host
        .parse()
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
    let listener = TcpListener::bind((address, 0))?;
    listener.local_addr().map(|address| address.port())
}

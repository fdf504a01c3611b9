//! What an operation has reserved here whose coordinator will never give it back: its site is
//! destroyed, or has forgotten it. Ends QEMUs that wait in vain; a VM that runs here, or could, is
//! not touched.

use std::sync::Arc;
use std::time::Duration;

use symvirt_qmp::migration::{Status, query};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::LocalHost;
use super::machine::{Machine, Role};
use crate::api::model::{Released, ReservedInfo, VmState};
use crate::operation::effects::{HostError, HostReply};
use crate::operation::{Denial, OperationId};

/// For a stream whose last bytes are here to have been loaded.
const LOADING: Duration = Duration::from_secs(3);
/// Interval of looking whether it has.
const LOOK: Duration = Duration::from_millis(50);

impl LocalHost {
    /// What operations have reserved here, by operation.
    pub fn reserved(&self) -> Vec<ReservedInfo> {
        let claims = self.claims();
        let reserved = claims.reserved.by_operation();
        reserved
            .map(|(operation, reservation)| ReservedInfo {
                operation: operation.clone(),
                vms: reservation.vms.iter().map(|it| it.name.clone()).collect(),
            })
            .collect()
    }

    /// Whether an operation of this host is under way.
    pub(super) fn coordinates(&self, operation: &OperationId) -> Result<HostReply, HostError> {
        let under_way = self.leases().values().any(|leased| leased == operation);
        match under_way {
            true => Ok(HostReply::Done),
            false => Err(HostError::Denied(Denial::UnknownOperation {
                operation: operation.clone(),
            })),
        }
    }

    /// Gives back what an operation has reserved here, and ends the QEMUs that wait for it. VMs that
    /// have arrived by it run on, and are coordinated here.
    ///
    /// # Errors
    /// [`HostError::Denied`], and nothing has changed: it has reserved nothing, or a QEMU that waits
    /// may have all of its VM.
    pub async fn give_back(
        self: &Arc<Self>,
        operation: &OperationId,
    ) -> Result<Released, HostError> {
        let _one_at_a_time = self.admitting.lock().await;
        let reserved = self.claims().reserved.of(operation).cloned();
        let Some(reserved) = reserved else {
            return Err(HostError::Denied(Denial::UnknownOperation {
                operation: operation.clone(),
            }));
        };
        let (mut waiting, mut here) = (Vec::new(), Vec::new());
        for spec in &reserved.vms {
            let Some(machine) = self.machines().get(&spec.name).cloned() else {
                continue;
            };
            match machine.role() {
                Role::Incoming { operation: of } if of == *operation => {
                    self.see_it_is_not_whole(operation, &machine).await?;
                    waiting.push(machine);
                }
                Role::Own => here.push(machine),
                Role::Incoming { .. } | Role::Serving | Role::Crossed => {}
            }
        }
        for machine in &waiting {
            self.end(machine).await?;
        }
        let removed = self.claims().reserved.remove(operation);
        removed.map_err(|error| self.failed(&error))?;
        for machine in &here {
            let spec = &machine.spec;
            self.gangs.attach(&spec.gang, &spec.name, &self.config.host);
        }
        let names = |machines: &[Arc<Machine>]| {
            let names = machines.iter().map(|machine| machine.spec.name.clone());
            names.collect()
        };
        let released = Released {
            operation: operation.clone(),
            ended: names(&waiting),
            kept: names(&here),
        };
        info!(%operation, ?released, "a reservation was given back without its coordinator");
        Ok(released)
    }

    /// One that has loaded its whole stream, or may have: its source may be no more.
    async fn see_it_is_not_whole(
        &self,
        operation: &OperationId,
        machine: &Machine,
    ) -> Result<(), HostError> {
        let deadline = Instant::now() + LOADING;
        loop {
            let state = machine.state().await;
            match state {
                VmState::Dead => return Ok(()),
                VmState::Incoming => {}
                _ => {
                    return Err(HostError::Denied(Denial::MayBeWhole {
                        operation: operation.clone(),
                        vm: machine.spec.name.clone(),
                        state: state.to_string(),
                    }));
                }
            }
            let client = machine.client().await;
            let client = client.map_err(|error| self.failed(&error))?;
            let progress = query(&client).await.map_err(|error| self.failed(&error))?;
            let loads = !progress.is_over() && progress.status != Status::none;
            if !loads || Instant::now() >= deadline {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }
}

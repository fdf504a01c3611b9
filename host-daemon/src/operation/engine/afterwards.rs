//! What is left to be done for a gang when its operation has ended; see [`crate::retry`].

use std::sync::Arc;

use tracing::error;

use super::{Crew, Engine, Entry};
use crate::config::GangName;
use crate::operation::effects::{Host, HostCall, HostError};
use crate::operation::journal::path_of;
use crate::operation::{Denial, OperationId, Phase};
use crate::retry::Wish;

/// A gang that no operation may begin on.
pub struct Occupied {
    engine: Arc<Engine>,
    gang: GangName,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.engine.host.end_lease(&self.gang);
    }
}

impl Engine {
    /// Keeps operations off a gang, for what is left to be done of `operation`, until the guard goes.
    ///
    /// # Errors
    /// [`Denial::Busy`].
    pub fn occupy(
        self: &Arc<Self>,
        gang: &GangName,
        operation: &OperationId,
    ) -> Result<Occupied, Denial> {
        self.host.lease(gang, operation)?;
        Ok(Occupied {
            engine: self.clone(),
            gang: gang.clone(),
        })
    }

    /// Forgets an operation that has ended without effect, its journal included.
    pub fn forget(&self, operation: &OperationId) {
        let mut table = self.table();
        let is_over = |entry: &Entry| entry.shown.borrow().phase == Phase::RolledBack;
        if !table.operations.get(operation).is_some_and(is_over) {
            return;
        }
        match std::fs::remove_file(path_of(&self.directory, operation)) {
            Ok(()) => {
                table.operations.remove(operation);
            }
            Err(error) => error!(operation_id = %operation, %error, "remove a journal"),
        }
    }

    /// Sees that nobody goes on with an operation that has reserved something here: its coordinator
    /// says so, or is, on somebody's word, `gone`.
    ///
    /// # Errors
    /// [`Denial::NotOrphaned`].
    pub async fn see_it_is_orphaned(
        &self,
        operation: &OperationId,
        gone: bool,
    ) -> Result<(), Denial> {
        let Some(host) = operation.coordinator() else {
            return Ok(());
        };
        let call = HostCall::Coordinates {
            operation: operation.clone(),
        };
        let answer = match self.peers.get(&host) {
            _ if host == self.config.host => self.host.call(call).await,
            Some(peer) => peer.call(call).await,
            None => Err(HostError::Unreachable {
                host: host.clone(),
                reason: "it is no peer of this host".into(),
            }),
        };
        let why = match answer {
            Err(HostError::Denied(Denial::UnknownOperation { .. })) => return Ok(()),
            Ok(_) => "it goes on with it".to_owned(),
            Err(_) if gone => return Ok(()),
            Err(error) => crate::api::error::chain(&error),
        };
        let operation = operation.clone();
        Err(Denial::NotOrphaned {
            operation,
            host,
            why,
        })
    }

    /// The gang is here, and gets later what the operation could not give it.
    pub(super) fn wish(&self, crew: &Crew, wish: Wish) {
        match self.wishes.put(wish) {
            Ok(()) => crew.note("the job is moved onto its HCAs as soon as that is possible"),
            Err(error) => error!(operation_id = %crew.plan.id, %error, "keep a retry"),
        }
    }
}

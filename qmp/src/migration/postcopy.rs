//! Postcopy: a machine crosses, and what is left of its memory follows while it runs.
//!
//! ```text
//!   source                                             destination
//!   start_postcopy, then stop_machine
//!     ─► pre-switchover ─ continue ─► device ──────►   loaded ─► cont: the machine runs here
//!     ─► postcopy-active ◄── pages it asks for ─────   postcopy-active
//!            │      │                                     │
//!            │      └─ the link breaks ─► postcopy-paused on both; it waits for pages that are missing
//!            │         rejoin(where) ◄──────────────── rejoin(at)
//!            ▼
//!        completed: all of it is there                 completed
//! ```
//! From `postcopy-active` on each end has a part of the machine that the other lacks, and neither
//! is the machine without the other: it cannot be cancelled, and an end that dies takes the machine
//! with it. A broken link only makes it wait.
//!
//! Both ends are told of it before the migration begins ([`super::Settings::postcopy`]); it goes over
//! one connection, and one for pages that are asked for, uncompressed.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::progress::{ask, is_over, may_run_there};
use super::{Endpoint, Incoming, MigrateError, Outgoing, Progress, Status};
use crate::commands::{self, RunState};
use crate::error::Error;

/// For a command that does not wait for QEMU's main loop.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Interval at which a destination is looked at that does not say when it has loaded a machine.
const LOOK: Duration = Duration::from_millis(2);

impl Outgoing {
    /// What is left when the machine is stopped goes over once it has crossed, at most
    /// `bytes_per_second` of it, 0 for no limit; pages that the machine waits for go first and at
    /// once. Takes effect with [`Outgoing::stop_machine`]; until then the migration can be
    /// cancelled as ever. Needs [`super::Settings::postcopy`].
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn start_postcopy(&self, bytes_per_second: u64) -> Result<(), MigrateError> {
        let arguments = json!({ "max-postcopy-bandwidth": bytes_per_second });
        let set = self.client.execute_raw("migrate-set-parameters", arguments);
        set.await
            .map_err(|source| self.failed("postcopy's bandwidth", source))?;
        self.command("postcopy", commands::migrate_start_postcopy {})
            .await
    }

    /// Waits until the machine is the destination's to run: all of it is there, or as much as it
    /// needs to begin.
    ///
    /// # Errors
    /// As [`Outgoing::wait_until`]; on failure the machine is here as before.
    pub async fn wait_for_crossing(&self, limit: Duration) -> Result<Progress, MigrateError> {
        self.wait_until(limit, |progress| may_run_there(progress.status))
            .await
    }

    /// Sends on what is left over a new connection, to where the destination's
    /// [`Incoming::rejoin`] listens. For a migration in `postcopy-paused`.
    ///
    /// # Errors
    /// [`MigrateError::Command`]; it is still paused. Whether the connection comes about, its
    /// progress shows.
    pub async fn rejoin(&self, to: &Endpoint) -> Result<(), MigrateError> {
        let command = commands::migrate {
            uri: Some(to.to_string()),
            channels: None,
            detach: None,
            resume: Some(true),
        };
        self.command("resumption", command).await
    }
}

impl Incoming {
    /// Waits until the machine can be run here, at most `limit`: all of it has been loaded, or, in
    /// postcopy, as much as it needs to begin. Cancel-safe, and can be called again.
    ///
    /// # Errors
    /// As [`Incoming::finish`].
    pub async fn loaded(&mut self, limit: Duration) -> Result<(), MigrateError> {
        let failed = |incoming: &Incoming, source: Error| incoming.failed("reception", source);
        let deadline = Instant::now() + limit;
        loop {
            let answer = ask(&self.client).await;
            let status = answer.map_err(|source| failed(self, source))?.status;
            let status = status.unwrap_or(Status::none);
            // Its end is looked at by who knows how to.
            if is_over(status) || Instant::now() >= deadline {
                return self.finish(Duration::ZERO).await;
            }
            if may_run_there(status) {
                let run = self.client.execute(commands::query_status {}).await;
                let run = run.map_err(|source| failed(self, source))?;
                if run.status != RunState::inmigrate {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Listens at `at` for the source's [`Outgoing::rejoin`]; the old connection, which the source
    /// has lost, is given up. Also while QEMU's main loop waits for a page that is missing, hence at
    /// a port that is told and not asked for.
    ///
    /// # Errors
    /// [`MigrateError::Command`], for example that the port is taken: to be tried again.
    pub async fn rejoin(&self, at: &Endpoint) -> Result<(), MigrateError> {
        let pause = commands::migrate_pause {};
        match self.client.execute_within(pause, AT_ONCE).await {
            // It has noticed by itself.
            Err(error) if error.refusal().is_some() => {}
            Err(source) => return Err(self.failed("pause", source)),
            Ok(_) => {}
        }
        let uri = at.to_string();
        let recover = commands::migrate_recover { uri };
        let listening = self.client.execute_within(recover, AT_ONCE).await;
        listening
            .map(drop)
            .map_err(|source| self.failed("resumption", source))
    }
}

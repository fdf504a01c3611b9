//! The source's side of a migration.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::observer::observe;
use super::progress::Progress;
use super::{Endpoint, MigrateError, Settings, Status, configure};
use crate::client::Client;
use crate::commands::{self, YankInstance};
use crate::error::{CloseReason, CommandName, Error};
use crate::event::{Event, Events, Timestamp};

/// How long an event is waited for that follows from what was just done.
const EVENT_LIMIT: Duration = Duration::from_millis(500);

/// How long a machine may take to run again after its migration came to nothing.
const SETTLING_LIMIT: Duration = Duration::from_secs(5);

/// How long an earlier migration, which is over, may hold its connection, and how often to look.
const LETTING_GO_LIMIT: Duration = Duration::from_secs(10);
const LETTING_GO_LOOK: Duration = Duration::from_millis(10);

/// A migration that was started here. Dropping it stops observing, not migrating.
#[derive(Debug)]
pub struct Outgoing {
    pub(super) client: Client,
    to: String,
    progress: watch::Receiver<Progress>,
    observer: JoinHandle<()>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.observer.abort();
    }
}

/// How a request to cancel ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// Cancelled, or failed by itself: the machine is here and runs on as before.
    StillHere,
    /// Too late: it completed, and the machine is at the destination.
    Moved,
}

impl Outgoing {
    /// Resets and configures, then starts; the numbers are asked for every `interval`.
    ///
    /// If it is dropped before it returns, the migration may have been started: cancel it.
    ///
    /// # Errors
    /// [`MigrateError::Blocked`] or [`MigrateError::Command`]; nothing was started, unless the
    /// connection was lost or QEMU did not answer in time.
    pub async fn start(
        client: &Client,
        to: &Endpoint,
        settings: &Settings,
        interval: Duration,
    ) -> Result<Outgoing, MigrateError> {
        let to = to.to_string();
        let failed = |step| {
            let with = to.clone();
            move |source| MigrateError::Command { step, with, source }
        };
        configure(client, settings)
            .await
            .map_err(failed("configuration"))?;
        let_go(client).await.map_err(failed("start"))?;
        let events = client.subscribe();
        let command = commands::migrate {
            uri: Some(to.clone()),
            channels: None,
            detach: None,
            resume: None,
        };
        if let Err(source) = client.execute(command).await {
            if source.refusal().is_some() {
                let reasons = super::query(client)
                    .await
                    .map_err(failed("start"))?
                    .blocked_reasons;
                if !reasons.is_empty() {
                    return Err(MigrateError::Blocked { reasons });
                }
            }
            return Err(failed("start")(source));
        }
        Ok(Outgoing::observe(
            client,
            to,
            events,
            interval,
            Progress::default(),
        ))
    }

    /// Takes over a migration that another client started, for example this program before its
    /// restart. `to` names it in errors. What QEMU shows is taken at its word: call it only if a
    /// migration is known to have been started.
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn attach(
        client: &Client,
        to: &Endpoint,
        interval: Duration,
    ) -> Result<Outgoing, MigrateError> {
        let with = to.to_string();
        let events = client.subscribe();
        let progress = super::query(client)
            .await
            .map_err(|source| MigrateError::Command {
                step: "take-over",
                with: with.clone(),
                source,
            })?;
        Ok(Outgoing::observe(client, with, events, interval, progress))
    }

    fn observe(
        client: &Client,
        to: String,
        events: Events,
        interval: Duration,
        progress: Progress,
    ) -> Outgoing {
        let (sender, receiver) = watch::channel(progress);
        let observer = tokio::spawn(observe(client.clone(), events, interval, sender));
        Outgoing {
            client: client.clone(),
            to,
            progress: receiver,
            observer,
        }
    }

    /// The progress as a stream: the latest value, and a wake-up for each new one. Its `history`
    /// has every status, also those that passed between two looks. It ends when the migration
    /// or the connection ends.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until `reached` holds or the migration is over, at most `limit`. Cancel-safe. After
    /// a failure the machine has left the state of migrating and takes commands like `cont`.
    ///
    /// # Errors
    /// [`MigrateError::Failed`], [`MigrateError::Cancelled`], [`MigrateError::Timeout`] (it goes
    /// on), [`MigrateError::Command`] when the connection was lost (it may go on).
    pub async fn wait_until(
        &self,
        limit: Duration,
        mut reached: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, MigrateError> {
        let mut receiver = self.progress.clone();
        let wait = receiver.wait_for(|progress| reached(progress) || progress.is_over());
        let outcome = match tokio::time::timeout(limit, wait).await {
            Ok(Ok(progress)) => Some(progress.clone()),
            Ok(Err(_)) => None,
            Err(_) => {
                let status = self.progress.borrow().status;
                return Err(MigrateError::Timeout {
                    with: self.to.clone(),
                    status,
                    limit,
                });
            }
        };
        match outcome {
            Some(progress) => {
                if matches!(progress.status, Status::failed | Status::cancelled) {
                    self.settled().await;
                }
                self.judge(progress)
            }
            None => Err(self.lost().await),
        }
    }

    /// Stops the machine, whose migration goes on; when QEMU says that it did, if it says so. With
    /// [`Settings::await_stop`] the rest is sent now and the migration goes to its end.
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn stop_machine(&self) -> Result<Option<Timestamp>, MigrateError> {
        let mut events = self.client.subscribe();
        self.command("stop", commands::stop {}).await?;
        let stopped = events.wait("STOP", EVENT_LIMIT, |event| {
            (event.name == "STOP").then_some(event.timestamp)
        });
        let at = stopped.await.ok().flatten();
        let monitor = self.client.socket().display();
        tracing::debug!(%monitor, at = at.map(|at| at.microseconds), "stopped");
        Ok(at)
    }

    /// Waits until it stands in `pre-switchover`: the machine is stopped and everything but the
    /// last pages is at the destination. Needs [`Settings::pause_before_switchover`].
    ///
    /// # Errors
    /// As [`Outgoing::wait_until`].
    pub async fn wait_for_switchover(&self, limit: Duration) -> Result<Progress, MigrateError> {
        self.wait_until(limit, |progress| progress.status == Status::pre_switchover)
            .await
    }

    /// Waits until it is completed. A failed or cancelled migration is an error, and the machine
    /// is here as before.
    ///
    /// # Errors
    /// As [`Outgoing::wait_until`].
    pub async fn finish(&self, limit: Duration) -> Result<Progress, MigrateError> {
        self.wait_until(limit, |progress| progress.status == Status::completed)
            .await
    }

    /// Lets a migration in `pre-switchover` go on. With a return path this is the point after
    /// which only QEMU's `completed` or `failed` says where the machine is.
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn continue_switchover(&self) -> Result<(), MigrateError> {
        let command = commands::migrate_continue {
            state: Status::pre_switchover,
        };
        self.command("continuation", command).await
    }

    /// Cancels and waits for the end, at most `limit`.
    ///
    /// # Errors
    /// [`MigrateError::Command`], [`MigrateError::Timeout`].
    pub async fn cancel(&self, limit: Duration) -> Result<Cancelled, MigrateError> {
        self.command("cancellation", commands::migrate_cancel {})
            .await?;
        match self.finish(limit).await {
            Ok(_) => Ok(Cancelled::Moved),
            Err(MigrateError::Cancelled { .. } | MigrateError::Failed { .. }) => {
                Ok(Cancelled::StillHere)
            }
            Err(other) => Err(other),
        }
    }

    /// Changes the downtime limit while it runs.
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn set_downtime_limit(&self, limit: Duration) -> Result<(), MigrateError> {
        let set = super::set_downtime_limit(&self.client, limit).await;
        set.map_err(|source| self.failed("downtime limit", source))
    }

    /// Changes the bandwidth while it runs, in bytes per second; 0 for no limit.
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn set_bandwidth(&self, bytes_per_second: u64) -> Result<(), MigrateError> {
        let set = super::set_bandwidth(&self.client, bytes_per_second).await;
        set.map_err(|source| self.failed("bandwidth", source))
    }

    pub(super) async fn command<C>(
        &self,
        step: &'static str,
        command: C,
    ) -> Result<(), MigrateError>
    where
        C: qapi_qmp::QmpCommand,
    {
        let done = self.client.execute(command).await;
        done.map(|_| ()).map_err(|source| self.failed(step, source))
    }

    pub(super) fn failed(&self, step: &'static str, source: Error) -> MigrateError {
        MigrateError::Command {
            step,
            with: self.to.clone(),
            source,
        }
    }

    /// QEMU announces that a migration came to nothing before it lets the machine run again, and
    /// until then refuses to be told so. Waits for that, not for long: the outcome is known.
    async fn settled(&self) {
        let mut events = self.client.subscribe();
        let status = self.client.execute(commands::query_status {}).await;
        if status.is_ok_and(|status| status.status == commands::RunState::finish_migrate) {
            let resumed = |event: &Event| (event.name == "RESUME").then_some(());
            if let Err(error) = events.wait("RESUME", SETTLING_LIMIT, resumed).await {
                tracing::warn!(%error, "the machine does not run again");
            }
        }
    }

    fn judge(&self, progress: Progress) -> Result<Progress, MigrateError> {
        let with = self.to.clone();
        match progress.status {
            Status::failed => {
                let reason = progress
                    .error
                    .unwrap_or_else(|| "QEMU gives no reason".to_owned());
                Err(MigrateError::Failed { with, reason })
            }
            Status::cancelled => Err(MigrateError::Cancelled { with }),
            _ => Ok(progress),
        }
    }

    /// The observer ends before the migration only with the connection.
    async fn lost(&self) -> MigrateError {
        let reason = match self.client.is_closed() {
            true => self.client.closed().await,
            false => CloseReason::EndOfStream,
        };
        let socket = self.client.socket().into();
        let command = CommandName::Borrowed("migrate");
        self.failed(
            "observation",
            Error::Closed {
                socket,
                command,
                source: reason,
            },
        )
    }
}

/// Returns when QEMU has let go of the connection of an earlier migration. It announces the end of
/// one first, and refuses the next until then, as a "duplicate yank instance".
async fn let_go(client: &Client) -> Result<(), Error> {
    let deadline = Instant::now() + LETTING_GO_LIMIT;
    loop {
        let held = client.execute(commands::query_yank {}).await?;
        let of_migration = |held: &YankInstance| matches!(held, YankInstance::migration);
        if !held.iter().any(of_migration) || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(LETTING_GO_LOOK).await;
    }
}

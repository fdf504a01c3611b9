//! The destination's side of a migration: a QEMU started with `-S -incoming defer`.

use std::time::Duration;

use qapi_qmp::MIGRATION;
use serde_json::Value;
use tokio::time::Instant;

use super::progress::{ask, is_over};
use super::{Endpoint, MigrateError, Settings, Status, configure};
use crate::client::Client;
use crate::commands;
use crate::error::{CommandName, Error};
use crate::event::{EventError, Events, WaitError};

/// A machine that waits for its state. It stays stopped when the state has arrived: whether it
/// may run is not decided here.
#[derive(Debug)]
pub struct Incoming {
    pub(super) client: Client,
    from: String,
    events: Events,
    /// How it ended, once known.
    ended: Option<Status>,
}

impl Incoming {
    /// Resets and configures, then listens at `from`, or begins to read the file. A QEMU that
    /// fails to load the state does not exit but says why.
    ///
    /// # Errors
    /// [`MigrateError::Command`]; QEMU does not listen, unless the connection was lost.
    pub async fn listen(
        client: &Client,
        from: &Endpoint,
        settings: &Settings,
    ) -> Result<Incoming, MigrateError> {
        let from = from.to_string();
        let failed = |step| {
            let with = from.clone();
            move |source| MigrateError::Command { step, with, source }
        };
        configure(client, settings)
            .await
            .map_err(failed("configuration"))?;
        let events = client.subscribe();
        let command = commands::migrate_incoming {
            uri: Some(from.clone()),
            channels: None,
            exit_on_error: Some(false),
        };
        client.execute(command).await.map_err(failed("reception"))?;
        Ok(Incoming {
            client: client.clone(),
            from,
            events,
            ended: None,
        })
    }

    /// Takes over a reception that another client began, for example this program before its
    /// restart. `from` names it in errors.
    pub fn attach(client: &Client, from: &Endpoint) -> Incoming {
        let events = client.subscribe();
        Incoming {
            client: client.clone(),
            from: from.to_string(),
            events,
            ended: None,
        }
    }

    /// The TCP port it listens on, for a listener on port 0; None if it is not TCP.
    ///
    /// # Errors
    /// [`MigrateError::Command`].
    pub async fn port(&self) -> Result<Option<u16>, MigrateError> {
        let answer = ask(&self.client)
            .await
            .map_err(|source| self.failed("address", source))?;
        let port_of = |address: &Value| {
            let port = address.get("port")?;
            port.as_str()?.parse().ok()
        };
        Ok(answer.socket_address.iter().find_map(port_of))
    }

    /// Waits until the whole state has been loaded, at most `limit`. Cancel-safe, and
    /// can be called again, also after its end.
    ///
    /// # Errors
    /// [`MigrateError::Failed`]: this machine holds no usable state and must be ended.
    /// [`MigrateError::Timeout`], [`MigrateError::Command`] when the connection was lost.
    pub async fn finish(&mut self, limit: Duration) -> Result<(), MigrateError> {
        let status = self.end(limit).await?;
        match status {
            Status::completed => Ok(()),
            Status::failed | Status::cancelled => {
                let answer = super::query(&self.client).await;
                let reason = answer.ok().and_then(|progress| progress.error);
                let reason = reason.unwrap_or_else(|| "QEMU gives no reason".to_owned());
                Err(MigrateError::Failed {
                    with: self.from.clone(),
                    reason,
                })
            }
            status => Err(MigrateError::Timeout {
                with: self.from.clone(),
                status,
                limit,
            }),
        }
    }

    /// The status in which it ended, or stands after `limit`.
    async fn end(&mut self, limit: Duration) -> Result<Status, MigrateError> {
        let deadline = Instant::now() + limit;
        while self.ended.is_none() {
            // An incoming migration is a QEMU's first, so what it answers is about this one; the
            // events of an end that was not seen may lie behind.
            let answer = ask(&self.client).await;
            let answer = answer.map_err(|source| self.failed("reception", source))?;
            let status = answer.status.unwrap_or(Status::none);
            let left = deadline.saturating_duration_since(Instant::now());
            if is_over(status) {
                self.ended = Some(status);
                break;
            }
            if left.is_zero() {
                return Ok(status);
            }
            let ended = self.events.wait("the end of the migration", left, |event| {
                let status = event.decode::<MIGRATION>()?.status;
                is_over(status).then_some(status)
            });
            match ended.await {
                Ok(status) => self.ended = Some(status),
                Err(WaitError::Events(EventError::Closed { socket, source })) => {
                    let command = CommandName::Borrowed("migrate-incoming");
                    let source = Error::Closed {
                        socket,
                        command,
                        source,
                    };
                    return Err(self.failed("reception", source));
                }
                Err(WaitError::Timeout { .. } | WaitError::Events(EventError::Lagged { .. })) => {}
            }
        }
        Ok(self.ended.unwrap_or(Status::none))
    }

    pub(super) fn failed(&self, step: &'static str, source: Error) -> MigrateError {
        MigrateError::Command {
            step,
            with: self.from.clone(),
            source,
        }
    }
}

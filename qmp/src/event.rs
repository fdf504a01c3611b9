//! Events, raw, and subscriptions that lose none without saying so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::error::CloseReason;

/// An event, known to this crate or not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// For example `DEVICE_DELETED`.
    pub name: String,
    /// Its data; null if it has none.
    #[serde(default)]
    pub data: Value,
    /// When QEMU sent it, on QEMU's host.
    pub timestamp: Option<Timestamp>,
}

/// Wall-clock time of QEMU's host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timestamp {
    /// Since the epoch; -1 if QEMU's clock failed.
    pub seconds: i64,
    /// Within the second.
    pub microseconds: i64,
}

impl Event {
    /// Its data as the type `E`, if it is an event of that name and its data have that shape.
    pub fn decode<E: qapi_spec::Event>(&self) -> Option<E> {
        if self.name != E::NAME {
            return None;
        }
        // An event without data still has to satisfy a struct of optional fields.
        let data = match &self.data {
            Value::Null => Value::Object(serde_json::Map::new()),
            data => data.clone(),
        };
        serde_json::from_value(data).ok()
    }

    /// The string under `key` in its data.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(Value::as_str)
    }
}

/// What a subscription yields other than an event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventError {
    /// The subscriber was too slow, and this many events are lost to it. Events after the gap
    /// follow: whoever waits for one of them has to look at the state instead.
    #[error("{}: {missed} events were not read in time and are lost", socket.display())]
    Lagged {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// How many.
        missed: u64,
    },
    /// The connection ended; there will be no more events.
    #[error("{}: connection closed", socket.display())]
    Closed {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// Why it ended.
        #[source]
        source: CloseReason,
    },
}

/// The events that arrived since the subscription was made, in order.
#[derive(Debug)]
pub struct Events {
    pub(crate) socket: Arc<Path>,
    pub(crate) receiver: broadcast::Receiver<Arc<Event>>,
    pub(crate) close_reason: Arc<std::sync::OnceLock<CloseReason>>,
}

impl Events {
    /// The next event. Cancel-safe: a dropped call takes no event with it.
    ///
    /// # Errors
    /// [`EventError::Lagged`] when events were lost, after which it can be called again;
    /// [`EventError::Closed`] at the end.
    pub async fn next(&mut self) -> Result<Arc<Event>, EventError> {
        self.receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => EventError::Lagged {
                socket: self.socket.clone(),
                missed,
            },
            broadcast::error::RecvError::Closed => {
                let reason = self.close_reason.get().cloned();
                EventError::Closed {
                    socket: self.socket.clone(),
                    source: reason.unwrap_or(CloseReason::EndOfStream),
                }
            }
        })
    }

    /// Waits until `pick` makes something of an event, at most `limit` long. `waiting_for` names
    /// it in errors. Cancel-safe, but events passed over are gone for this subscription.
    ///
    /// # Errors
    /// [`WaitError::Timeout`], [`WaitError::Events`] when events were lost or the connection
    /// ended.
    pub async fn wait<T>(
        &mut self,
        waiting_for: &str,
        limit: Duration,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, WaitError> {
        let socket = self.socket.clone();
        let found = async {
            loop {
                let event = self.next().await?;
                if let Some(found) = pick(&event) {
                    return Ok(found);
                }
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(outcome) => outcome,
            Err(_) => Err(WaitError::Timeout {
                socket,
                waiting_for: waiting_for.to_owned(),
                limit,
            }),
        }
    }
}

/// Why a wait for an event ended without it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WaitError {
    /// It did not come in time.
    #[error("{}: {waiting_for} did not come within {limit:?}", socket.display())]
    Timeout {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// What was waited for.
        waiting_for: String,
        /// How long.
        limit: Duration,
    },
    /// It may have been lost, or can no longer come.
    #[error(transparent)]
    Events(#[from] EventError),
}

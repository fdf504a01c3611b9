//! The connection loop: one reader task, one writer task, and a table of who waits for what.
//!
//! ```text
//!  execute ──reserve──► queue ──► writer task ──► socket ──► QEMU
//!     ▲                                                        │
//!     └── oneshot ◄── waiting: id → oneshot ◄── reader task ◄──┘
//!                     subscribers ◄── events ◄──┘
//! ```
//! A caller owns nothing but its end of a oneshot. Dropping it, at any moment, leaves the table
//! without its entry and the stream of bytes whole: lines are written and read by tasks that
//! nobody cancels while the connection lives. An answer that nobody waits for is discarded.
//!
//! It does not reconnect: whoever holds state that a new QEMU would not have decides that.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::error::CloseReason;
use crate::event::{Event, Events};
use crate::wire::{self, Incoming, Refusal, RequestId};

/// Longest line accepted from QEMU; the largest known (`query-qmp-schema`) is below 1 MiB.
const LINE_LIMIT: usize = 32 << 20;

/// Events kept for a subscriber that does not read. QEMU sends a handful per hot-plug and a few
/// per second of migration.
const EVENTS_KEPT: usize = 1024;

/// Commands queued for the writer. QEMU itself answers them one after the other.
pub(crate) const COMMANDS_QUEUED: usize = 64;

type Outcome = Result<Value, Refusal>;

/// What the tasks and the callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) socket: Arc<Path>,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Outcome>>>,
    /// None once the connection has ended, so that subscriptions end too.
    events: Mutex<Option<broadcast::Sender<Arc<Event>>>>,
    close_reason: Arc<OnceLock<CloseReason>>,
    closed: watch::Sender<bool>,
    next_id: AtomicU64,
}

/// The entry of one caller in the table, removed when the caller goes away.
#[derive(Debug)]
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    pub(crate) id: RequestId,
    pub(crate) answer: oneshot::Receiver<Outcome>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}

impl Shared {
    pub(crate) fn new(socket: Arc<Path>) -> Arc<Shared> {
        Arc::new(Shared {
            socket,
            waiting: Mutex::new(HashMap::new()),
            events: Mutex::new(Some(broadcast::Sender::new(EVENTS_KEPT))),
            close_reason: Arc::new(OnceLock::new()),
            closed: watch::Sender::new(false),
            next_id: AtomicU64::new(1),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Outcome>>> {
        // Nothing panics while holding it, and a table with one entry too many does no harm.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new command into the table, before it is sent.
    pub(crate) fn expect_answer(self: &Arc<Self>) -> Waiting {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        // After the end nobody would ever answer: dropping the sender tells the caller.
        if !self.is_closed() {
            waiting.insert(id, sender);
        }
        drop(waiting);
        Waiting {
            shared: self.clone(),
            id,
            answer,
        }
    }

    pub(crate) fn subscribe(&self) -> Events {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = match &*events {
            Some(sender) => sender.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        };
        Events {
            socket: self.socket.clone(),
            receiver,
            close_reason: self.close_reason.clone(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.close_reason.get().is_some()
    }

    pub(crate) fn close_reason(&self) -> CloseReason {
        self.close_reason
            .get()
            .cloned()
            .unwrap_or(CloseReason::EndOfStream)
    }

    pub(crate) async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        // The sender lives in `self`, so this ends only when the value says so.
        if closed.wait_for(|closed| *closed).await.is_err() {
            return CloseReason::EndOfStream;
        }
        self.close_reason()
    }

    /// Ends the connection for everybody; the first reason stays.
    fn close(&self, reason: CloseReason) {
        let mut waiting = self.waiting();
        if self.close_reason.set(reason).is_err() {
            return;
        }
        waiting.clear();
        drop(waiting);
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.closed.send_replace(true);
    }

    fn deliver(&self, incoming: Incoming, line: &[u8]) {
        match incoming {
            Incoming::Reply {
                id: Some(id),
                outcome,
            } => {
                let waiting = self.waiting().remove(&id);
                let unclaimed = match waiting {
                    Some(sender) => sender.send(outcome).is_err(),
                    None => true,
                };
                if unclaimed {
                    tracing::debug!(socket = %self.socket.display(), id, "late answer discarded");
                }
            }
            Incoming::Event(event) => {
                tracing::debug!(socket = %self.socket.display(), event = %event.name, data = %event.data);
                let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(events) = &*events {
                    // An error only says that nobody subscribes at the moment.
                    events.send(Arc::new(event)).ok();
                }
            }
            Incoming::Reply { id: None, .. } | Incoming::Greeting(_) | Incoming::Unknown => {
                let line = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                tracing::warn!(socket = %self.socket.display(), line, "line is not QMP, skipped");
            }
        }
    }
}

/// Reads one line into `line`, without its end.
pub(crate) async fn read_line(
    from: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    line.clear();
    let mut bounded = from.take(LINE_LIMIT as u64 + 1);
    let read = bounded.read_until(b'\n', line).await;
    match read {
        Err(error) => Err(CloseReason::Read(Arc::new(error))),
        Ok(0) => Err(CloseReason::EndOfStream),
        Ok(_) if line.last() == Some(&b'\n') => {
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            Ok(())
        }
        Ok(read) if read > LINE_LIMIT => Err(CloseReason::LineTooLong { limit: LINE_LIMIT }),
        Ok(_) => Err(CloseReason::EndOfStream),
    }
}

/// The reader task; ends with the connection.
pub(crate) async fn read(shared: Arc<Shared>, mut from: BufReader<OwnedReadHalf>) {
    let mut line = Vec::new();
    loop {
        if let Err(reason) = read_line(&mut from, &mut line).await {
            tracing::debug!(socket = %shared.socket.display(), %reason, "connection ended");
            shared.close(reason);
            return;
        }
        if !line.is_empty() {
            shared.deliver(wire::parse(&line), &line);
        }
    }
}

/// The writer task; ends with the connection or with the last client.
pub(crate) async fn write(
    shared: Arc<Shared>,
    mut to: OwnedWriteHalf,
    mut lines: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(line) = lines.recv().await {
        if let Err(error) = to.write_all(&line).await {
            shared.close(CloseReason::Write(Arc::new(error)));
            return;
        }
    }
}

//! The client: connect, execute, subscribe.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qapi_qmp::{QMPCapability, QmpCommand};
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{self, COMMANDS_QUEUED, Shared};
use crate::error::{CloseReason, CommandName, Error};
use crate::event::Events;
use crate::wire::{self, Band, Greeting, Incoming, Version};

/// How long a command may take unless the caller says otherwise. `device_add` of a VFIO device
/// pins the guest's memory, which takes seconds for a large guest.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// What a QEMU calls commands that are carried out beside its main loop.
const OOB: &str = "oob";

/// Interval at which a socket that is not there yet is tried again.
const CONNECT_RETRY: Duration = Duration::from_millis(20);

/// A connection to the monitor of one QEMU. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    lines: mpsc::Sender<Vec<u8>>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    version: Version,
    /// Whether commands may be carried out beside QEMU's main loop.
    out_of_band: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer is left to finish what was issued; without senders it ends by itself, and
        // closes its half, whereupon nothing keeps the reader useful.
        self.reader.abort();
        if self.shared.is_closed() {
            self.writer.abort();
        }
    }
}

impl Client {
    /// Connects to the monitor at `socket`, waits for its greeting and enters command mode, all
    /// within `limit`. A socket that does not exist yet or does not accept is tried again until
    /// then, so it can be called at once after QEMU was started.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::NoGreeting`] (also when another client holds the monitor),
    /// [`Error::NotQmp`], or an error of `qmp_capabilities`.
    pub async fn connect(socket: impl AsRef<Path>, limit: Duration) -> Result<Client, Error> {
        let socket: Arc<Path> = Arc::from(socket.as_ref());
        let deadline = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(&*socket).await {
                Ok(stream) => break stream,
                Err(error) if is_not_there_yet(&error) && Instant::now() < deadline => {
                    sleep(CONNECT_RETRY).await;
                }
                Err(error) => {
                    return Err(Error::Connect {
                        socket,
                        source: Arc::new(error),
                    });
                }
            }
        };
        Client::over(stream, socket, limit, deadline).await
    }

    /// The same on a stream that is connected already; `name` stands for its socket in errors.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn from_stream(
        stream: UnixStream,
        name: impl AsRef<Path>,
        limit: Duration,
    ) -> Result<Client, Error> {
        Client::over(
            stream,
            Arc::from(name.as_ref()),
            limit,
            Instant::now() + limit,
        )
        .await
    }

    async fn over(
        stream: UnixStream,
        socket: Arc<Path>,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Client, Error> {
        let (read_half, write_half) = stream.into_split();
        let mut from = BufReader::new(read_half);
        let greeting = timeout_at(deadline, greeting(&socket, &mut from))
            .await
            .map_err(|_| Error::NoGreeting {
                socket: socket.clone(),
                limit,
            })??;

        let shared = Shared::new(socket);
        let out_of_band = greeting.has(OOB);
        let (lines, queue) = mpsc::channel(COMMANDS_QUEUED);
        let reader = tokio::spawn(connection::read(shared.clone(), from));
        let writer = tokio::spawn(connection::write(shared.clone(), write_half, queue));
        let inner = Inner {
            shared,
            lines,
            reader,
            writer,
            version: greeting.version,
            out_of_band,
        };
        let client = Client {
            inner: Arc::new(inner),
        };
        let negotiate = qapi_qmp::qmp_capabilities {
            enable: out_of_band.then(|| vec![QMPCapability::oob]),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        client.execute_within(negotiate, left).await?;
        Ok(client)
    }

    /// Executes a command of [`crate::commands`] and waits at most [`DEFAULT_LIMIT`]. One that QEMU
    /// can carry out beside its main loop overtakes those that wait for that.
    ///
    /// Cancel-safe for the connection: dropping the future never disturbs it. A command that was
    /// already issued is still carried out by QEMU.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Timeout`] (the connection stays usable), [`Error::Closed`],
    /// [`Error::Encode`], [`Error::Decode`].
    pub async fn execute<C: QmpCommand>(&self, command: C) -> Result<C::Ok, Error> {
        self.execute_within(command, DEFAULT_LIMIT).await
    }

    /// [`Client::execute`] with a limit of its own.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn execute_within<C: QmpCommand>(
        &self,
        command: C,
        limit: Duration,
    ) -> Result<C::Ok, Error> {
        let name = CommandName::Borrowed(C::NAME);
        let arguments = serde_json::to_value(&command)
            .map_err(|source| self.encode_error(name.clone(), source))?;
        let band = match C::ALLOW_OOB && self.inner.out_of_band {
            true => Band::Out,
            false => Band::In,
        };
        let answer = self.exchange(name.clone(), &arguments, band, limit).await?;
        self.decode(name, answer)
    }

    /// Executes a command by name, with any arguments (null for none) and any answer: for what
    /// the generated types lack, and for devices with arbitrary properties. Waits at most
    /// [`DEFAULT_LIMIT`].
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn execute_raw(
        &self,
        command: impl Into<Cow<'static, str>>,
        arguments: Value,
    ) -> Result<Value, Error> {
        self.exchange(command.into(), &arguments, Band::In, DEFAULT_LIMIT)
            .await
    }

    /// Subscribes to all events that arrive from now on. Subscribe, then act: an event that
    /// follows a command issued after this call cannot be missed.
    pub fn subscribe(&self) -> Events {
        self.inner.shared.subscribe()
    }

    /// Waits until the connection has ended and says why. Cancel-safe.
    pub async fn closed(&self) -> CloseReason {
        self.inner.shared.closed().await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.shared.is_closed()
    }

    /// The monitor's socket.
    pub fn socket(&self) -> &Path {
        &self.inner.shared.socket
    }

    /// The version of QEMU.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    async fn exchange(
        &self,
        command: CommandName,
        arguments: &Value,
        band: Band,
        limit: Duration,
    ) -> Result<Value, Error> {
        let shared = &self.inner.shared;
        let mut waiting = shared.expect_answer();
        let line = wire::command_line(&command, arguments, band, waiting.id)
            .map_err(|source| self.encode_error(command.clone(), source))?;
        tracing::debug!(socket = %shared.socket.display(), id = waiting.id, %command, %arguments);
        let answered = async {
            // Either the whole line is queued, or, if we are dropped here, nothing of it.
            let place = self.inner.lines.reserve().await.ok()?;
            place.send(line);
            (&mut waiting.answer).await.ok()
        };
        let socket = shared.socket.clone();
        match tokio::time::timeout(limit, answered).await {
            Err(_) => Err(Error::Timeout {
                socket,
                command,
                limit,
            }),
            Ok(None) => Err(Error::Closed {
                socket,
                command,
                source: shared.close_reason(),
            }),
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(refusal))) => {
                let (class, message) = (refusal.class, refusal.desc);
                Err(Error::Refused {
                    socket,
                    command,
                    class,
                    message,
                })
            }
        }
    }

    fn encode_error(&self, command: CommandName, source: serde_json::Error) -> Error {
        let socket = self.inner.shared.socket.clone();
        Error::Encode {
            socket,
            command,
            source: Arc::new(source),
        }
    }

    pub(crate) fn decode<T: serde::de::DeserializeOwned>(
        &self,
        command: CommandName,
        answer: Value,
    ) -> Result<T, Error> {
        let socket = self.inner.shared.socket.clone();
        serde_json::from_value(answer).map_err(|source| Error::Decode {
            socket,
            command,
            source: Arc::new(source),
        })
    }
}

/// QEMU creates the socket a moment after its start, and binds before it listens.
fn is_not_there_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

async fn greeting(
    socket: &Arc<Path>,
    from: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
) -> Result<Greeting, Error> {
    let mut line = Vec::new();
    connection::read_line(from, &mut line)
        .await
        .map_err(|source| Error::Closed {
            socket: socket.clone(),
            command: CommandName::Borrowed("the greeting"),
            source,
        })?;
    match wire::parse(&line) {
        Incoming::Greeting(greeting) => Ok(greeting),
        _ => Err(Error::NotQmp {
            socket: socket.clone(),
            greeting: String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned(),
        }),
    }
}

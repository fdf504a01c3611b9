//! The agent's unix socket: one connection a rank, and connections that ask.
//!
//! Each connection has its own two tasks and its own bounded queue, so that a rank that vanishes,
//! talks nonsense or does not read harms nobody but itself: it is disconnected with a logged
//! reason. Everything a rank says goes through one bounded channel to the [`super::core`].

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use symvirt_protocol::frame::{self, Decoder};
use symvirt_protocol::query::{Answer, GREETING, Query};
use symvirt_protocol::rank::FromRank;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{debug, warn};

use super::core::ConnId;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 4096;
/// Frames that may wait for a rank that does not read. Far more than a switch has: each match of a
/// synchronous send that a switch had drained is one, and a rank reads none of them while it waits
/// for its gate to close.
const OUTBOX: usize = 16_384;
/// Time to say the first thing.
const GREETING_TIME: Duration = Duration::from_secs(10);

/// A frame for a rank, encoded once for all of them.
pub type Frame = Arc<[u8]>;

/// What happens on the socket.
#[derive(Debug)]
pub enum Event {
    /// A rank connected.
    Opened(ConnId, mpsc::Sender<Frame>),
    /// It said something.
    Said(ConnId, FromRank),
    /// Its connection is over.
    Closed(ConnId),
    /// Somebody asks.
    Asked(Query, oneshot::Sender<Answer>),
}

/// A bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds `path`, readable and writable for everybody: ranks run as any user, and are checked by
    /// their credentials. A file left by a dead agent is replaced.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("create directory {}", parent.display()))?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            anyhow::bail!("another agent listens on {}", path.display());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove old {}", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(path, everybody)
            .with_context(|| format!("open {} to ranks", path.display()))?;
        Ok(Socket {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves until cancelled.
    pub async fn serve(&self, events: mpsc::Sender<Event>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut next = 0;
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: those of closed connections come back.
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                warn!(limit = MAX_CONNECTIONS, "too many connections, one refused");
                continue;
            };
            next += 1;
            let (conn, events) = (ConnId(next), events.clone());
            tokio::spawn(async move {
                if let Err(reason) = connection(conn, stream, &events).await {
                    warn!(
                        conn = conn.0,
                        reason = format!("{reason:#}"),
                        "disconnected"
                    );
                }
                drop(place);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(path = %self.path.display(), %error, "socket file stays");
        }
    }
}

async fn connection(
    conn: ConnId,
    mut stream: UnixStream,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let pid = getsockopt(&stream.as_fd(), PeerCredentials)
        .context("read peer credentials")?
        .pid();
    let mut greeting = [0; GREETING.len()];
    match tokio::time::timeout(GREETING_TIME, stream.read_exact(&mut greeting)).await {
        Ok(Ok(_)) => {}
        // A probe for life (another agent that starts) says nothing.
        Ok(Err(_)) => return Ok(()),
        Err(_) => anyhow::bail!("pid {pid} said nothing for {GREETING_TIME:?}"),
    }
    if greeting == GREETING {
        return tokio::time::timeout(GREETING_TIME, answer(stream, events))
            .await
            .with_context(|| format!("pid {pid} asked too slowly"))?;
    }
    let (reader, mut writer) = stream.into_split();
    let (outbox, mut frames) = mpsc::channel::<Frame>(OUTBOX);
    let writing = tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return Written::Refused;
            }
        }
        // The writing half dropped closes the connection.
        Written::LetGo
    });
    events
        .send(Event::Opened(conn, outbox))
        .await
        .ok()
        .context("agent is stopping")?;
    let listening = listen(conn, pid, reader, &greeting, events);
    tokio::pin!(listening);
    let heard = tokio::select! {
        heard = &mut listening => heard,
        written = writing => match written {
            Ok(Written::LetGo) | Err(_) => Ok(()),
            // The rank has closed: its last words, a `Leave` perhaps, are still to be read.
            Ok(Written::Refused) => {
                tokio::time::timeout(GREETING_TIME, listening).await.unwrap_or(Ok(()))
            }
        },
    };
    if events.send(Event::Closed(conn)).await.is_err() {
        debug!(conn = conn.0, "closed while the agent stops");
    }
    heard.with_context(|| format!("rank process {pid}"))
}

/// Why nothing is written to a rank any more.
enum Written {
    /// The core has let go of it.
    LetGo,
    /// It takes nothing any more.
    Refused,
}

/// Reads frames until the end, or until the rank breaks a rule.
async fn listen(
    conn: ConnId,
    pid: i32,
    mut reader: OwnedReadHalf,
    first: &[u8],
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let mut decoder = Decoder::default();
    decoder.push(first);
    let mut buffer = vec![0; 64 << 10];
    loop {
        while let Some(message) = decoder.next::<FromRank>()? {
            if let FromRank::Join(join) = &message {
                let claimed = join.pid;
                anyhow::ensure!(
                    i64::from(claimed) == i64::from(pid),
                    "claims to be pid {claimed}"
                );
            }
            if events.send(Event::Said(conn, message)).await.is_err() {
                return Ok(());
            }
        }
        anyhow::ensure!(decoder.skipped() == 0, "sent bytes that are no frame");
        let read = match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            // A killed process with unread data.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("read from rank"),
        };
        decoder.push(&buffer[..read]);
    }
}

async fn answer(mut stream: UnixStream, events: &mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 256];
    let query = loop {
        if let Some(query) = decoder.next::<Query>()? {
            break query;
        }
        let read = stream.read(&mut buffer).await.context("read query")?;
        anyhow::ensure!(read > 0, "query cut off");
        decoder.push(&buffer[..read]);
    };
    let (reply, answer) = oneshot::channel();
    events
        .send(Event::Asked(query, reply))
        .await
        .ok()
        .context("agent is stopping")?;
    let answer = answer.await.context("agent is stopping")?;
    stream
        .write_all(&frame::encode(&answer)?)
        .await
        .context("write answer")
}

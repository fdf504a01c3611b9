//! The socket to the agent.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use symvirt_protocol::frame::{self, Decoder, FrameError};
use symvirt_protocol::ids::{Epoch, ObjectId, ProcId};
use symvirt_protocol::query::{Answer, GREETING, Query, Reach};
use symvirt_protocol::rank::{FromRank, ToRank};

use crate::object::lock;

/// Where the agent listens unless `SYMVIRT_AGENT_SOCKET` says otherwise.
const DEFAULT_SOCKET: &str = "/run/symvirt/agent.sock";
/// An agent that takes no bytes for so long is lost.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer of the agent is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Why there is no agent (any more).
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("connect to the agent at {path}")]
    Connect {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the agent closed the connection")]
    Closed,
    #[error("read from the agent")]
    Read(#[source] std::io::Error),
    #[error("the agent's message")]
    Frame(#[from] FrameError),
}

/// Where the agent listens.
pub fn socket() -> PathBuf {
    std::env::var_os("SYMVIRT_AGENT_SOCKET")
        .map_or_else(|| Path::new(DEFAULT_SOCKET).to_owned(), PathBuf::from)
}

/// Asks the agent which processes of this guest have joined; none if it does not answer in time.
pub fn processes_of_this_guest() -> BTreeSet<ProcId> {
    match ask(&Query::Processes) {
        Some(Answer::Processes(processes)) => processes.into_iter().collect(),
        Some(Answer::Status(_) | Answer::Reach(_)) | None => BTreeSet::new(),
    }
}

/// Asks the agent how an object is reached in an epoch; `None` if it does not answer in time.
pub fn reach(object: ObjectId, epoch: Epoch) -> Option<Reach> {
    match ask(&Query::Reach { object, epoch })? {
        Answer::Reach(reach) => Some(reach),
        Answer::Status(_) | Answer::Processes(_) => None,
    }
}

/// On a connection of its own, so that any thread may ask at any time.
fn ask(query: &Query) -> Option<Answer> {
    let ask = || -> Result<Answer, Box<dyn std::error::Error>> {
        let mut stream = UnixStream::connect(socket())?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(&GREETING)?;
        stream.write_all(&frame::encode(query)?)?;
        let (mut decoder, mut bytes) = (Decoder::default(), [0; 4096]);
        loop {
            if let Some(answer) = decoder.next()? {
                return Ok(answer);
            }
            match stream.read(&mut bytes)? {
                0 => return Err("it ended the connection".into()),
                count => decoder.push(&bytes[..count]),
            }
        }
    };
    ask()
        .inspect_err(|error| crate::log::debug!("ask the agent: {error}"))
        .ok()
}

/// A connection to the agent: written by any thread, read by one.
pub struct Channel {
    writer: Mutex<UnixStream>,
    reader: Mutex<Reader>,
}

struct Reader {
    stream: UnixStream,
    decoder: Decoder,
}

impl Channel {
    /// Connects to the agent of this guest.
    ///
    /// # Errors
    /// [`ChannelError::Connect`]: there is no agent, or it is not listening.
    pub fn connect() -> Result<Channel, ChannelError> {
        let path = socket();
        let connect = || {
            let stream = UnixStream::connect(&path)?;
            stream.set_write_timeout(Some(WRITE_LIMIT))?;
            Ok((stream.try_clone()?, stream))
        };
        match connect() {
            Ok((writer, stream)) => Ok(Channel {
                writer: Mutex::new(writer),
                reader: Mutex::new(Reader {
                    stream,
                    decoder: Decoder::default(),
                }),
            }),
            Err(source) => Err(ChannelError::Connect { path, source }),
        }
    }

    /// Sends a message. A failure shows at the next [`Channel::receive`] as a closed connection.
    pub fn send(&self, message: &FromRank) {
        let mut writer = lock(&self.writer);
        let sent = match frame::encode(message) {
            Ok(bytes) => writer.write_all(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            crate::log::debug!("send to the agent: {error}");
            // A half-sent frame must not be continued; already closed is as good.
            drop(writer.shutdown(std::net::Shutdown::Both));
        }
    }

    /// The next message, `None` if none comes within `limit`.
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive(&self, limit: Duration) -> Result<Option<ToRank>, ChannelError> {
        let mut reader = lock(&self.reader);
        loop {
            if let Some(message) = reader.decoder.next()? {
                return Ok(Some(message));
            }
            if !is_readable(&reader.stream, limit) {
                return Ok(None);
            }
            let mut bytes = [0; 16384];
            match reader.stream.read(&mut bytes) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => reader.decoder.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ChannelError::Read(error)),
            }
        }
    }

    /// Ends the connection; a reader that waits wakes up.
    pub fn close(&self) {
        // Already closed is as good.
        drop(lock(&self.writer).shutdown(std::net::Shutdown::Both));
    }
}

fn is_readable(stream: &UnixStream, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(limit.subsec_nanos()),
    };
    // SAFETY: one entry, and a timeout that lives until the call returns.
    unsafe { libc::ppoll(&raw mut poll, 1, &raw const timeout, std::ptr::null()) > 0 }
}

//! What can go wrong with one command. Every variant names the monitor's socket and the command.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use qapi_spec::ErrorClass;

/// Name of a QMP command.
pub type CommandName = Cow<'static, str>;

/// A QMP operation that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be connected.
    #[error("connect to the monitor {}", socket.display())]
    Connect {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// QEMU did not greet in time. QEMU serves one client of a monitor socket at a time and lets
    /// others wait without a word.
    #[error(
        "no greeting from the monitor {} within {limit:?}; another client may hold it",
        socket.display()
    )]
    NoGreeting {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// How long we waited.
        limit: Duration,
    },
    /// What connected is not a QMP server.
    #[error("{} does not speak QMP: it greets with {greeting:?}", socket.display())]
    NotQmp {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// The beginning of what it said.
        greeting: String,
    },
    /// QEMU answered with an error; nothing was changed unless the command's documentation says
    /// otherwise.
    #[error("{}: {command} refused by QEMU ({class:?}): {message}", socket.display())]
    Refused {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// The command.
        command: CommandName,
        /// QEMU's class of the error.
        class: ErrorClass,
        /// QEMU's description.
        message: String,
    },
    /// No answer in time. QEMU may still carry the command out; its answer is discarded, and the
    /// connection stays usable.
    #[error(
        "{}: {command} not answered within {limit:?}; QEMU may still carry it out",
        socket.display()
    )]
    Timeout {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// The command.
        command: CommandName,
        /// How long we waited.
        limit: Duration,
    },
    /// The connection ended before the answer. Whether the command was carried out is unknown.
    #[error("{}: connection closed before {command} was answered", socket.display())]
    Closed {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// The command, or what was waited for.
        command: CommandName,
        /// Why it ended.
        #[source]
        source: CloseReason,
    },
    /// The arguments cannot be written as JSON.
    #[error("{}: arguments of {command} cannot be encoded", socket.display())]
    Encode {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// The command.
        command: CommandName,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// QEMU carried the command out, but its answer has another shape than expected.
    #[error("{}: answer to {command} has an unexpected shape", socket.display())]
    Decode {
        /// The monitor's socket.
        socket: Arc<Path>,
        /// The command.
        command: CommandName,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
}

impl Error {
    /// Whether QEMU itself refused, with an error of this class.
    pub fn is_class(&self, wanted: &ErrorClass) -> bool {
        matches!(self, Error::Refused { class, .. } if class == wanted)
    }

    /// QEMU's own words, where QEMU refused.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Error::Refused { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Whether the connection is gone, so that no further command can succeed on it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Error::Closed { .. })
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseReason {
    /// QEMU closed it, usually because it exited.
    #[error("QEMU closed the connection")]
    EndOfStream,
    /// Reading failed.
    #[error("reading from the monitor failed")]
    Read(#[source] Arc<io::Error>),
    /// Writing failed.
    #[error("writing to the monitor failed")]
    Write(#[source] Arc<io::Error>),
    /// A line exceeds what we are prepared to hold in memory.
    #[error("the monitor sent a line of more than {limit} bytes")]
    LineTooLong {
        /// The bound, in bytes.
        limit: usize,
    },
}

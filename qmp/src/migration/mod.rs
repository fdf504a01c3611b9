//! Migration: the same steps for a socket and a file, for both sides.
//!
//! ```text
//!   source                                      destination (started with -S -incoming defer)
//!   Outgoing::start                             Incoming::listen
//!     reset, configure, subscribe, migrate        reset, configure, subscribe, migrate-incoming
//!        │                                           │
//!      setup ─► active ─► pre-switchover ─► device ─► completed      finish ─► completed ─► cont
//!        │         │      (only if asked)      │
//!        └─────────┴──── cancel ──► cancelled  └─► failed: the source runs on
//! ```
//! Capabilities and parameters persist in a QEMU over all its migrations, in and out, so both
//! sides begin with a reset of everything QEMU lists. `query-migrate` shows how the *previous*
//! migration ended until the next has begun, so an outcome counts only after our own `setup`.
//!
//! It does not decide when to continue, does not run the destination, and leaves a migration
//! alone when its handle is dropped: whoever journals decides.

mod error;
mod incoming;
mod observer;
mod outgoing;
mod postcopy;
mod progress;
mod settings;

use std::fmt;
use std::path::PathBuf;

pub use error::MigrateError;
pub use incoming::Incoming;
pub use outgoing::{Cancelled, Outgoing};
pub use progress::{Progress, StatusChange, query};
pub use qapi_qmp::MigrationStatus as Status;
pub use settings::{Settings, configure, set_bandwidth, set_downtime_limit};

/// Where a migration goes to, or comes from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// A unix socket on this host.
    Unix(PathBuf),
    /// A TCP address; the destination may listen on port 0 and ask [`Incoming::port`].
    Tcp {
        /// Name or address.
        host: String,
        /// Port number.
        port: u16,
    },
    /// A file.
    File(PathBuf),
    /// Anything else that QEMU takes.
    Uri(String),
}

impl fmt::Display for Endpoint {
    /// As a URI of QEMU.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Endpoint::File(path) => write!(f, "file:{}", path.display()),
            Endpoint::Uri(uri) => uri.fmt(f),
        }
    }
}

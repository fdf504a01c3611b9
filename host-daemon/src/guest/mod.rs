//! The guests of a gang: their channels, and the coordinator that speaks to their ranks.
//!
//! ```text
//!  guest ─ virtio-serial ─ chardev socket ─┬─► channel ─► coordinator ─► protocol::gang
//!  guest ─ … on another host ─ relay (TLS) ┘   (link)      (one a gang)   (pure)
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`channel`] | one guest's byte stream, made reliable and reopened for ever |
//! | [`coordinator`] | the gang's state machine, driven: agents' words in, messages out |
//! | [`gangs`] | the gangs of this host |
//! | [`attempt`] | one wish for a switch, over the attempts it takes |
//! | [`handle`] | what the rest of the daemon sees of a gang |
//!
//! What a guest says is hostile input: frames are bounded, the coordinator admits a bounded number
//! of ranks, and nothing that a guest claims is used as a path, an argument or an identity.

mod attempt;
mod channel;
mod coordinator;
mod gangs;
mod handle;

use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{HostName, VmName};

pub use gangs::Gangs;
pub use handle::{AgentView, Gang, GangView, GuestView};

/// A byte stream to a guest's agent.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens byte streams to guests.
pub trait Connector: Send + Sync {
    /// Opens the stream of a guest that is on `host`.
    fn connect(&self, host: HostName, vm: VmName) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
}

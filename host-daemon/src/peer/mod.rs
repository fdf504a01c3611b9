//! The link between daemons: mutual TLS, and HTTP over it.

mod link;
mod listener;
mod tls;

pub use link::{Peer, PeerError, UPGRADE};
pub use listener::TlsListener;
pub use tls::{PeerIdentity, Tls, TlsError};

//! Mutual TLS, and HTTP over it: the link between daemons, and how users at other machines reach one.

mod identity;
mod link;
mod listener;
mod tls;

pub use identity::{Identity, User};
pub use link::{Peer, PeerError, UPGRADE, connect};
pub use listener::TlsListener;
pub use tls::{Tls, TlsError};

//! The connection to a daemon: that of this host by its socket, another one over TLS.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::CliError;
use crate::api::error::chain;
use crate::config::{HostName, TlsFiles};
use crate::http::{self, EventStream};
use crate::peer::{self, Tls};

/// Where the daemon of `packaging/host/symvirtd.service` has its socket.
pub(super) const USUAL: &str = "/run/symvirt/symvirtd.sock";

/// A daemon, and who asks it.
pub(super) enum Daemon {
    /// Of this host, by its socket; the kernel says who asks.
    Here(PathBuf),
    /// Of another host.
    There {
        /// The name that its certificate must have.
        host: HostName,
        /// Where it listens.
        address: SocketAddr,
        /// The user's certificate.
        tls: Tls,
    },
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(socket) => socket.display().fmt(f),
            Self::There { host, address, .. } => write!(f, "{host} ({address})"),
        }
    }
}

impl Daemon {
    pub fn new(
        socket: Option<PathBuf>,
        remote: Option<(HostName, SocketAddr)>,
        identity: Option<PathBuf>,
    ) -> Result<Self, CliError> {
        if let Some((host, address)) = remote {
            let cert = identity.ok_or(CliError::NoIdentity)?;
            let tls = Tls::load(&TlsFiles {
                ca: cert.with_file_name("ca.pem"),
                key: cert.with_extension("key"),
                cert,
            })?;
            return Ok(Self::There { host, address, tls });
        }
        let usual = || Some(PathBuf::from(USUAL)).filter(|path| path.exists());
        socket
            .or_else(usual)
            .map(Self::Here)
            .ok_or(CliError::NoSocket)
    }

    async fn connect(&self) -> Result<http::Sender, CliError> {
        let unreachable = |reason: String| CliError::Daemon {
            place: self.to_string(),
            reason,
        };
        match self {
            Self::There { host, address, tls } => {
                let connected = peer::connect(host, *address, tls).await;
                connected.map_err(|error| unreachable(chain(&error)))
            }
            Self::Here(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| unreachable(hinted(&error)))?;
                let connected = http::connect(stream).await;
                connected.map_err(|error| unreachable(error.to_string()))
            }
        }
    }

    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, CliError> {
        let mut sender = self.connect().await?;
        Ok(http::exchange::<(), A>(&mut sender, Method::GET, path, None).await?)
    }

    pub async fn post<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<A, CliError> {
        let mut sender = self.connect().await?;
        Ok(http::exchange(&mut sender, Method::POST, path, Some(body)).await?)
    }

    pub async fn delete<A: DeserializeOwned>(&self, path: &str) -> Result<A, CliError> {
        let mut sender = self.connect().await?;
        Ok(http::exchange::<(), A>(&mut sender, Method::DELETE, path, None).await?)
    }

    pub async fn events(&self, path: &str) -> Result<EventStream, CliError> {
        let mut sender = self.connect().await?;
        let response = http::send::<()>(&mut sender, Method::GET, path, None).await?;
        Ok(EventStream::new(response.into_body()))
    }
}

/// What went wrong on a local socket, and what it may be.
fn hinted(error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            "; is `symvirtd --config FILE` running, and is this its socket?"
        }
        std::io::ErrorKind::PermissionDenied => "; its group may use it",
        _ => "",
    };
    format!("{error}{hint}")
}

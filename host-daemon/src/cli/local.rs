//! The connection to the daemon of this host.

use std::path::PathBuf;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::CliError;
use crate::http::{self, EventStream};

/// Where a daemon installed by a package has its socket.
const USUAL: &str = "/run/symvirt/symvirtd.sock";

/// The daemon of this host.
pub(super) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    pub fn new(socket: Option<PathBuf>) -> Result<Self, CliError> {
        let usual = || Some(PathBuf::from(USUAL)).filter(|path| path.exists());
        socket
            .or_else(usual)
            .map(|socket| Self { socket })
            .ok_or(CliError::NoSocket)
    }

    async fn connect(&self) -> Result<http::Sender, CliError> {
        let unreachable = |reason: String| CliError::Daemon {
            socket: self.socket.clone(),
            reason,
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    "; is `symvirtd --config FILE` running, and is this its socket?"
                }
                std::io::ErrorKind::PermissionDenied => "; its group may use it",
                _ => "",
            };
            unreachable(format!("{error}{hint}"))
        })?;
        http::connect(stream)
            .await
            .map_err(|error| unreachable(error.to_string()))
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

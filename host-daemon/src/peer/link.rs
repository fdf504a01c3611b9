//! Requests to another daemon, on connections that are kept for the next ones: a VM stands still
//! while its destination is asked to run it.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::Tls;
use crate::api::error::chain;
use crate::api::model::{API_VERSION, HostInfo};
use crate::config::{HostName, PeerConfig, VmName};
use crate::guest::Stream;
use crate::http::{self, HttpError};
use crate::operation::Denial;
use crate::operation::effects::{Host, HostCall, HostError, HostReply};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For an answer that needs no work.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// For calls that start, plug or run something; on top of a limit of their own.
const WORK_LIMIT: Duration = Duration::from_secs(90);
/// For the last check before the point of no return, while VMs stand still.
const CHECK_LIMIT: Duration = Duration::from_secs(3);
/// Protocol name of the relayed byte stream.
pub const UPGRADE: &str = "symvirt-guest";

/// Why a peer did not answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One side does not accept the other's certificate.
    #[error("certificates at {address}: {reason}")]
    Certificates {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The request failed.
    #[error("request to {address}")]
    Request {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} s", limit.as_secs())]
    Timeout {
        /// Where.
        address: SocketAddr,
        /// For how long.
        limit: Duration,
    },
}

/// Another daemon.
pub struct Peer {
    name: HostName,
    address: SocketAddr,
    tls: Tls,
    idle: Mutex<Vec<http::Sender>>,
}

impl Peer {
    /// The peer of a configuration.
    pub fn new(config: &PeerConfig, tls: Tls) -> Self {
        let (name, address) = (config.name.clone(), config.address);
        Self {
            name,
            address,
            tls,
            idle: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// Asks who is there.
    ///
    /// # Errors
    /// A denial that says why this peer cannot take part.
    pub async fn greet(&self) -> Result<HostInfo, Denial> {
        let host = self.name.clone();
        let info: HostInfo = self
            .exchange::<(), _>(Method::GET, "/peer/v1/host", None, ANSWER_LIMIT)
            .await
            .map_err(|error| self.denial(&error))?;
        if info.host != host {
            let reason = format!("at {} answers host {}", self.address, info.host);
            return Err(Denial::Unreachable { host, reason });
        }
        if info.api_version != API_VERSION {
            let (theirs, ours) = (info.api_version, API_VERSION);
            return Err(Denial::ApiVersion { host, theirs, ours });
        }
        Ok(info)
    }

    fn denial(&self, error: &PeerError) -> Denial {
        let host = self.name.clone();
        match error {
            PeerError::Certificates { reason, .. } => Denial::Certificates {
                host,
                reason: reason.clone(),
            },
            PeerError::Request {
                source: HttpError::Refused(problem),
                ..
            } if problem.code == "certificates" => Denial::Certificates {
                host,
                reason: problem.message.clone(),
            },
            other => Denial::Unreachable {
                host,
                reason: chain(other),
            },
        }
    }

    async fn exchange<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> Result<A, PeerError> {
        // A kept connection may have ended meanwhile: every call can be repeated on a new one.
        let kept = self.idle().pop();
        if let Some(sender) = kept.filter(|sender| !sender.is_closed()) {
            match self.on(sender, method.clone(), path, body, limit).await {
                Err(PeerError::Request {
                    source: HttpError::Connection { .. },
                    ..
                }) => {}
                other => return other,
            }
        }
        let sender = self.connect().await?;
        self.on(sender, method, path, body, limit).await
    }

    fn idle(&self) -> MutexGuard<'_, Vec<http::Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on<B: Serialize, A: DeserializeOwned>(
        &self,
        mut sender: http::Sender,
        method: Method,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> Result<A, PeerError> {
        let address = self.address;
        let exchange = http::exchange(&mut sender, method, path, body);
        let Ok(answer) = timeout(limit, exchange).await else {
            // The connection still owes an answer: it is not kept.
            return Err(PeerError::Timeout { address, limit });
        };
        if matches!(answer, Ok(_) | Err(HttpError::Refused(_))) && !sender.is_closed() {
            self.idle().push(sender);
        }
        answer.map_err(|source| match tls_reason(&source) {
            Some(reason) => PeerError::Certificates { address, reason },
            None => PeerError::Request { address, source },
        })
    }

    async fn connect(&self) -> Result<http::Sender, PeerError> {
        connect(&self.name, self.address, &self.tls).await
    }

    /// Opens the byte stream of a guest on that host.
    ///
    /// # Errors
    /// The connection's, or that the peer has no such guest.
    pub async fn guest(&self, vm: &VmName) -> io::Result<Box<dyn Stream>> {
        let mut sender = self.connect().await.map_err(io::Error::other)?;
        let path = format!("/peer/v1/guests/{vm}");
        let request = hyper::Request::builder()
            .method(Method::GET)
            .uri(&path)
            .header("host", "symvirt")
            .header("connection", "upgrade")
            .header("upgrade", UPGRADE)
            .body(http_body_util::Full::new(bytes::Bytes::new()))
            .map_err(io::Error::other)?;
        let response = timeout(CONNECT_LIMIT, sender.send_request(request))
            .await?
            .map_err(io::Error::other)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let reason = format!("{path} on {}: status {}", self.name, response.status());
            return Err(io::Error::other(reason));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }
}

/// Opens a connection to the daemon of `host`, which must show a certificate with that name.
///
/// # Errors
/// [`PeerError::Connect`] and [`PeerError::Certificates`].
pub async fn connect(
    host: &HostName,
    address: SocketAddr,
    tls: &Tls,
) -> Result<http::Sender, PeerError> {
    let failed = |source| PeerError::Connect { address, source };
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(host.to_string())
            .map_err(|error| failed(io::Error::other(error)))?;
        let connector = TlsConnector::from(tls.client());
        let stream =
            connector
                .connect(name, stream)
                .await
                .map_err(|error| match tls_reason(&error) {
                    Some(reason) => PeerError::Certificates { address, reason },
                    None => failed(error),
                })?;
        http::connect(stream)
            .await
            .map_err(|error| failed(io::Error::other(error)))
    };
    timeout(CONNECT_LIMIT, connecting)
        .await
        .unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
}

/// How long a call may take.
fn limit(call: &HostCall) -> Duration {
    match call {
        HostCall::StillWaits { .. } => CHECK_LIMIT,
        HostCall::Unplug { limit_ms, .. } | HostCall::Cross { limit_ms, .. } => {
            WORK_LIMIT + Duration::from_millis(*limit_ms)
        }
        HostCall::Admit { .. }
        | HostCall::Release { .. }
        | HostCall::CopyStatus { .. }
        | HostCall::Look { .. }
        | HostCall::Coordinates { .. }
        | HostCall::Pace { .. }
        | HostCall::Stop { .. } => ANSWER_LIMIT,
        HostCall::Prepare { .. }
        | HostCall::Discard { .. }
        | HostCall::Resume { .. }
        | HostCall::Adopt { .. }
        | HostCall::Plug { .. }
        | HostCall::StartCopy { .. }
        | HostCall::CancelCopy { .. }
        | HostCall::Rejoin { .. }
        | HostCall::SendOn { .. }
        | HostCall::Forfeit { .. }
        | HostCall::Reclaim { .. }
        | HostCall::Account { .. }
        | HostCall::Retire { .. } => WORK_LIMIT,
    }
}

/// The reason of TLS, if that is what went wrong.
fn tls_reason(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut error = Some(error);
    while let Some(this) = error {
        if let Some(tls) = this.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        // The error inside an io::Error is not its source but itself.
        if let Some(inner) = this
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            && let Some(tls) = inner.downcast_ref::<rustls::Error>()
        {
            return Some(tls.to_string());
        }
        error = this.source();
    }
    None
}

impl Host for Peer {
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        Box::pin(async move {
            let answer: Result<Result<HostReply, HostError>, PeerError> = self
                .exchange(Method::POST, "/peer/v1/call", Some(&call), limit(&call))
                .await;
            match answer {
                Ok(answer) => answer,
                Err(error) => Err(HostError::Unreachable {
                    host: self.name.clone(),
                    reason: chain(&error),
                }),
            }
        })
    }
}

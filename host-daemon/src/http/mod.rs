//! A small HTTP/1 client over any stream: the local socket for the command line, TLS for peers.
//!
//! Does not keep connections; see [`crate::peer`] for the one that does.

mod events;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::error::Problem;

pub use events::EventStream;

/// A connection on which requests can be sent, one after another.
pub type Sender = SendRequest<Full<Bytes>>;

/// Longest answer that is read. Streams of events are not bounded by it.
const LONGEST_ANSWER: usize = 16 << 20;

/// Why a request has no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed.
    #[error("{method} {path}")]
    Connection {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer is not what this version understands.
    #[error("{method} {path}: the answer, status {status}, is not understood: {reason}")]
    Answer {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// Of the answer.
        status: StatusCode,
        /// Why.
        reason: String,
    },
    /// The daemon refuses.
    #[error("{}", .0.message)]
    Refused(Problem),
}

/// Makes a connection of `stream`. Its task ends with the connection.
///
/// # Errors
/// Those of the handshake.
pub async fn connect<S>(stream: S) -> Result<Sender, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    });
    Ok(sender)
}

/// Sends a request and reads a JSON answer.
///
/// # Errors
/// [`HttpError`].
pub async fn exchange<B: Serialize, A: DeserializeOwned>(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<A, HttpError> {
    let response = send(sender, method.clone(), path, body).await?;
    let status = response.status();
    let answer = |reason: String| HttpError::Answer {
        method: method.clone(),
        path: path.to_owned(),
        status,
        reason,
    };
    let body = http_body_util::Limited::new(response.into_body(), LONGEST_ANSWER)
        .collect()
        .await
        .map_err(|error| answer(error.to_string()))?
        .to_bytes();
    if status.is_success() {
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| answer(error.to_string()))
    } else {
        Err(serde_json::from_slice::<Problem>(&body).map_or_else(
            |_| answer(String::from_utf8_lossy(&body).into_owned()),
            HttpError::Refused,
        ))
    }
}

/// Sends a request and leaves the answer's body to the caller.
///
/// # Errors
/// [`HttpError::Connection`].
pub async fn send<B: Serialize>(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<Response<Incoming>, HttpError> {
    let json = body.map(|body| serde_json::to_vec(body).expect("invariant: requests are data"));
    let request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header("host", "symvirt")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(json.unwrap_or_default())))
        .expect("invariant: paths are made of checked names");
    let failed = |source| HttpError::Connection {
        method,
        path: path.to_owned(),
        source,
    };
    sender.ready().await.map_err({
        let failed = failed.clone();
        move |source| failed(source)
    })?;
    sender.send_request(request).await.map_err(failed)
}

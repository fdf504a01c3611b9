//! Who asked for what on the local socket, and what was answered: the kernel says who is at the other
//! end. Calls that change nothing are not noted.

use std::fmt;

use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tracing::{Instrument, info, info_span};

/// The process at the other end of a local connection, when it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self {
            uid: credentials.map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "uid {uid}")?,
            None => f.write_str("an unknown user")?,
        }
        match self.pid {
            Some(pid) => write!(f, ", pid {pid}"),
            None => Ok(()),
        }
    }
}

/// Names the caller in all that is logged of its request, and the answer to what may change
/// something.
pub async fn attributed(
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let span = info_span!("call", %caller);
    let (method, path) = (request.method().clone(), request.uri().to_string());
    async move {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        info!(%method, path, status, "audit: answered");
        response
    }
    .instrument(span)
    .await
}

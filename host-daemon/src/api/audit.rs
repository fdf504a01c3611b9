//! Which user asked for what, and what was answered: of the local socket the kernel says who is at the
//! other end, of a TLS connection the certificate. Calls that change nothing are not noted.

use std::fmt;

use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tracing::{Instrument, info, info_span};

use crate::peer::User;

/// Who is at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The process that opened a local one.
    Local {
        /// Its user.
        uid: Option<u32>,
        /// Its number.
        pid: Option<i32>,
    },
    /// A user at another machine.
    Remote(User),
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self::Local {
            uid: credentials.map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, pid) = match self {
            Self::Local { uid, pid } => (uid, pid),
            Self::Remote(user) => return user.fmt(f),
        };
        match uid {
            Some(uid) => write!(f, "uid {uid}")?,
            None => f.write_str("an unknown user")?,
        }
        match pid {
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

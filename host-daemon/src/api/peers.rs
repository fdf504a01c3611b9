//! The API for other daemons, over TLS with client certificates.
//!
//! | request | does |
//! |---|---|
//! | `GET /peer/v1/host` | who is here |
//! | `POST /peer/v1/call` | one [`HostCall`] |
//! | `GET /peer/v1/guests/{vm}` | becomes the byte stream of a guest's channel |
//!
//! A certificate of the right authority is not enough: it must name a configured peer.

use std::sync::Arc;

use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use super::error::{ApiError, Problem};
use super::extract::Body;
use super::model::HostInfo;
use crate::config::VmName;
use crate::daemon::Daemon;
use crate::operation::effects::{Host, HostCall, HostError, HostReply};
use crate::peer::{Identity, UPGRADE};

type Shared = State<Arc<Daemon>>;

/// The routes for other daemons.
pub fn routes(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/peer/v1/host", get(host))
        .route("/peer/v1/call", post(call))
        .route("/peer/v1/guests/{vm}", get(guest))
        .layer(from_fn(peers_only))
        .with_state(daemon)
}

async fn peers_only(
    ConnectInfo(identity): ConnectInfo<Identity>,
    request: Request,
    next: Next,
) -> Response {
    match identity {
        Identity::Peer(peer) => {
            debug!(%peer, path = request.uri().path(), "peer request");
            next.run(request).await
        }
        Identity::User(_) | Identity::Unknown => {
            let problem = Problem::new(
                "certificates",
                "the certificate names no configured peer of this host",
                "add a `[[peer]]` with the name in the certificate",
            );
            ApiError::new(StatusCode::FORBIDDEN, problem).into_response()
        }
    }
}

async fn host(State(daemon): Shared) -> Json<HostInfo> {
    Json(daemon.info())
}

async fn call(
    State(daemon): Shared,
    ConnectInfo(peer): ConnectInfo<Identity>,
    Body(call): Body<HostCall>,
) -> Result<Json<Result<HostReply, HostError>>, ApiError> {
    let noted = match &call {
        // They change nothing, and come all the time.
        HostCall::CopyStatus { .. } | HostCall::Look { .. } | HostCall::Account { .. } => false,
        _ => {
            info!(?peer, ?call, "audit: peer's call");
            true
        }
    };
    // In a task of its own: a connection that ends must not stop a call in the middle.
    let calling = tokio::spawn(async move { daemon.host.call(call).await });
    let answer = calling.await.map_err(super::error::panicked)?;
    if noted && let Err(error) = &answer {
        info!(?peer, %error, "audit: peer's call failed");
    }
    Ok(Json(answer))
}

async fn guest(
    State(daemon): Shared,
    Path(vm): Path<VmName>,
    request: Request,
) -> Result<Response, ApiError> {
    let no_guest = |message: String| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            Problem::new("unknown-vm", message, ""),
        )
    };
    let Some(socket) = daemon.host.channel_socket(&vm) else {
        return Err(no_guest(format!("no VM `{vm}` here")));
    };
    let channel = UnixStream::connect(&socket)
        .await
        .map_err(|error| no_guest(format!("guest channel of {vm}: {error}")))?;
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(relay(vm, channel, upgrading));
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Ends with either of its ends. QEMU does not see that only the writing half of a channel was
/// closed while the guest reads nothing, and would keep it from the next client.
async fn relay(vm: VmName, channel: UnixStream, upgrading: hyper::upgrade::OnUpgrade) {
    let upgraded = match upgrading.await {
        Ok(upgraded) => upgraded,
        Err(error) => return warn!(%vm, %error, "guest relay not begun"),
    };
    let (mut from_peer, mut to_peer) = tokio::io::split(TokioIo::new(upgraded));
    let (mut from_guest, mut to_guest) = channel.into_split();
    let ended = tokio::select! {
        ended = tokio::io::copy(&mut from_peer, &mut to_guest) => ended,
        ended = tokio::io::copy(&mut from_guest, &mut to_peer) => ended,
    };
    match ended {
        Ok(bytes) => debug!(%vm, bytes, "guest relay ended"),
        Err(error) => debug!(%vm, %error, "guest relay broken"),
    }
}

//! The API for users: on the local socket, and over TLS as far as their role allows.
//!
//! | request | does |
//! |---|---|
//! | `GET /v1/host` | this host |
//! | `GET /v1/vms`, `POST /v1/vms`, `DELETE /v1/vms/{name}` | list, start, stop VMs |
//! | `POST /v1/vms/{name}/resume` | run a VM that has arrived and was not run |
//! | `GET /v1/gangs` | gangs with VMs here |
//! | `GET /v1/operations`, `POST /v1/operations` | list, start operations |
//! | `GET /v1/operations/{id}`, `DELETE /v1/operations/{id}` | show, cancel one |
//! | `DELETE /v1/reservations/{id}` | give back what is reserved here by a coordinator that is gone |
//! | `GET /v1/retries`, `DELETE /v1/retries/{id}` | what ended operations could not do; give one up |
//! | `GET /v1/operations/{id}/events` | its changes until it ends, as server-sent events |
//!
//! `POST /v1/operations?request_id=ID`, sent again because its answer was lost, is answered with the
//! operation that it began, also by another daemon of the host.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::{self, Stream};
use tracing::info;

use super::audit::attributed;
use super::error::{ApiError, Problem};
use super::extract::Body;
use super::model::{GangInfo, HostInfo, OperationInfo, Released, VmInfo};
use crate::config::{GangName, VmName, VmSpec};
use crate::daemon::Daemon;
use crate::operation::{Denial, Denied, OperationId, Request, RequestId};
use crate::retry::RetryInfo;

type Shared = State<Arc<Daemon>>;
type Answer<T> = Result<Json<T>, ApiError>;

/// Shortest time between two events of one stream.
const PACE: Duration = Duration::from_millis(100);

/// The routes for users. Whoever serves them says who asks: [`Caller`](super::audit::Caller).
pub fn routes(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/host", get(host))
        .route("/v1/vms", get(vms).post(start_vm))
        .route("/v1/vms/{name}", axum::routing::delete(stop_vm))
        .route("/v1/vms/{name}/resume", axum::routing::post(resume_vm))
        .route("/v1/gangs", get(gangs))
        .route("/v1/operations", get(operations).post(submit))
        .route("/v1/operations/{id}", get(operation).delete(cancel))
        .route("/v1/operations/{id}/events", get(events))
        .route("/v1/reservations/{id}", axum::routing::delete(release))
        .route("/v1/retries", get(retries))
        .route("/v1/retries/{id}", axum::routing::delete(give_up))
        .layer(from_fn(attributed))
        .with_state(daemon)
}

async fn host(State(daemon): Shared) -> Json<HostInfo> {
    Json(daemon.info())
}

async fn vms(State(daemon): Shared) -> Json<Vec<VmInfo>> {
    Json(daemon.host.list().await)
}

async fn start_vm(State(daemon): Shared, Body(spec): Body<VmSpec>) -> Answer<VmInfo> {
    refuse_busy(&daemon, &spec.gang)?;
    info!(vm = %spec.name, "audit: start VM");
    // In a task of its own: a client that goes away must not leave half a VM.
    let starting = tokio::spawn(async move { daemon.host.start(spec).await });
    Ok(Json(starting.await.map_err(super::error::panicked)??))
}

async fn stop_vm(State(daemon): Shared, Path(name): Path<VmName>) -> Answer<()> {
    let vms = daemon.host.list().await;
    if let Some(vm) = vms.iter().find(|vm| vm.name == name)
        // Who finds out what a damaged journal does not tell may have to.
        && daemon.engine.see_it_is_known(&vm.gang).is_ok()
    {
        refuse_busy(&daemon, &vm.gang)?;
    }
    info!(vm = %name, "audit: stop VM");
    let stopping = tokio::spawn(async move { daemon.host.stop(&name).await });
    Ok(Json(stopping.await.map_err(super::error::panicked)??))
}

async fn resume_vm(State(daemon): Shared, Path(name): Path<VmName>) -> Answer<()> {
    info!(vm = %name, "audit: run a VM that has arrived");
    let resuming = tokio::spawn(async move { daemon.host.resume_arrived(&name).await });
    Ok(Json(resuming.await.map_err(super::error::panicked)??))
}

fn refuse_busy(daemon: &Daemon, gang: &GangName) -> Result<(), ApiError> {
    match daemon.engine.busy(gang) {
        Some(operation) => Err(Denial::Busy {
            gang: gang.clone(),
            operation,
        }
        .into()),
        None => Ok(()),
    }
}

async fn gangs(State(daemon): Shared) -> Json<Vec<GangInfo>> {
    Json(daemon.gang_infos())
}

async fn operations(State(daemon): Shared) -> Json<Vec<OperationInfo>> {
    Json(daemon.engine.list())
}

/// How an operation is asked for.
#[derive(serde::Deserialize)]
struct Asked {
    /// Asked again by the same id, it is the same operation.
    request_id: Option<RequestId>,
}

async fn submit(
    State(daemon): Shared,
    Query(Asked { request_id }): Query<Asked>,
    Body(request): Body<Request>,
) -> Result<(StatusCode, Json<OperationInfo>), ApiError> {
    info!(%request, "audit: start operation");
    let submitting = tokio::spawn(async move {
        // Who says what the gang is to be on wants nothing else any more.
        let settles = match &request {
            Request::Switch { gang, .. } => Some(gang.clone()),
            Request::Migrate { .. } => None,
        };
        let started = daemon.engine.submit(request, request_id).await?;
        let wish = settles.and_then(|gang| daemon.host.wishes.of(&gang));
        if let Some(Err(error)) = wish.map(|info| daemon.host.wishes.remove(&info.wish.operation)) {
            tracing::warn!(%error, "a retry is not given up");
        }
        Ok::<_, Denied>(started)
    });
    let started = submitting.await.map_err(super::error::panicked)??;
    Ok((StatusCode::ACCEPTED, Json(started)))
}

async fn operation(State(daemon): Shared, Path(id): Path<OperationId>) -> Answer<OperationInfo> {
    let shown = daemon.engine.follow(&id)?;
    let info = shown.borrow().clone();
    Ok(Json(info))
}

async fn cancel(State(daemon): Shared, Path(id): Path<OperationId>) -> Answer<OperationInfo> {
    info!(operation_id = %id, "audit: cancel operation");
    Ok(Json(daemon.engine.cancel(&id)?))
}

/// How a reservation is given back.
#[derive(serde::Deserialize)]
struct Release {
    /// Somebody knows that its coordinator will not be back.
    #[serde(default)]
    coordinator_is_gone: bool,
}

async fn release(
    State(daemon): Shared,
    Path(id): Path<OperationId>,
    Query(Release {
        coordinator_is_gone,
    }): Query<Release>,
) -> Answer<Released> {
    info!(operation_id = %id, coordinator_is_gone, "audit: give back a reservation");
    let releasing = tokio::spawn(async move {
        let engine = &daemon.engine;
        engine.see_it_is_orphaned(&id, coordinator_is_gone).await?;
        daemon.host.give_back(&id).await.map_err(ApiError::from)
    });
    Ok(Json(releasing.await.map_err(super::error::panicked)??))
}

async fn retries(State(daemon): Shared) -> Json<Vec<RetryInfo>> {
    Json(daemon.host.wishes.list())
}

async fn give_up(State(daemon): Shared, Path(id): Path<OperationId>) -> Answer<()> {
    info!(operation_id = %id, "audit: give up retrying");
    match daemon.host.wishes.remove(&id) {
        Ok(true) => Ok(Json(())),
        Ok(false) => Err(Denial::UnknownOperation { operation: id }.into()),
        Err(error) => {
            let problem = Problem::new("failed", error.to_string(), "is the disk writable?");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem))
        }
    }
}

async fn events(
    State(daemon): Shared,
    Path(id): Path<OperationId>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let shown = daemon.engine.follow(&id)?;
    let changes = stream::unfold(Some((shown, true)), |following| async move {
        let (mut shown, first) = following?;
        if !first {
            tokio::time::sleep(PACE).await;
            if shown.changed().await.is_err() {
                return None;
            }
        }
        let info = shown.borrow_and_update().clone();
        let event = Event::default().json_data(&info).ok()?;
        let next = (!info.phase.is_terminal()).then_some((shown, false));
        Some((Ok(event), next))
    });
    Ok(Sse::new(changes).keep_alive(KeepAlive::default()))
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        let status = match &denial {
            Denial::UnknownGang { .. }
            | Denial::UnknownVm { .. }
            | Denial::UnknownHost { .. }
            | Denial::UnknownOperation { .. } => StatusCode::NOT_FOUND,
            Denial::Unreachable { .. } | Denial::Certificates { .. } => StatusCode::BAD_GATEWAY,
            Denial::BadBounds { .. } | Denial::BadSpec { .. } | Denial::RequestIdReused { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Denial::AlreadyThere { .. }
            | Denial::CannotCancel { .. }
            | Denial::NotOrphaned { .. }
            | Denial::MayBeWhole { .. }
            | Denial::DamagedJournal { .. }
            | Denial::Busy { .. }
            | Denial::NotRunning { .. }
            | Denial::NotArrived { .. }
            | Denial::VmExists { .. }
            | Denial::MissingFile { .. }
            | Denial::Full { .. }
            | Denial::NoVcpus { .. }
            | Denial::NoHca { .. }
            | Denial::ApiVersion { .. }
            | Denial::NoAgent { .. }
            | Denial::AgentVersion { .. } => StatusCode::CONFLICT,
        };
        Self::new(
            status,
            Problem::new(denial.code(), denial.to_string(), denial.way_out()),
        )
    }
}

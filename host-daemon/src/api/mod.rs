//! The API: REST and JSON, server-sent events for progress.
//!
//! | module | holds |
//! |---|---|
//! | [`users`] | routes for users |
//! | [`peers`] | routes for other daemons |
//! | [`roles`] | what users at other machines may ask for |
//! | [`model`] | what is shown |
//! | [`error`] | how a refusal looks |
//! | [`audit`] | which user asked for what |

pub mod audit;
pub mod error;
mod extract;
pub mod model;
pub mod peers;
pub mod roles;
pub mod users;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn;

use crate::daemon::Daemon;
use error::{ApiError, Problem};

/// What is served on the local socket. Needs an [`audit::Caller`] of each connection.
pub fn on_socket(daemon: Arc<Daemon>) -> Router {
    users::routes(daemon).fallback(unknown_path)
}

/// What is served over TLS. Needs a [`crate::peer::Identity`] of each connection.
pub fn on_network(daemon: Arc<Daemon>) -> Router {
    let users = users::routes(daemon.clone()).layer(from_fn(roles::users_only));
    peers::routes(daemon).merge(users).fallback(unknown_path)
}

async fn unknown_path(uri: Uri) -> ApiError {
    let problem = Problem::new("unknown-path", format!("no such path: {}", uri.path()), "");
    ApiError::new(StatusCode::NOT_FOUND, problem)
}

//! The API: REST and JSON, server-sent events for progress.
//!
//! | module | holds |
//! |---|---|
//! | [`local`] | routes of the local socket, for operators |
//! | [`peers`] | routes of the TLS listener, for other daemons |
//! | [`model`] | what is shown |
//! | [`error`] | how a refusal looks |
//! | [`audit`] | who asked on the local socket |

pub mod audit;
pub mod error;
mod extract;
pub mod local;
pub mod model;
pub mod peers;

use axum::http::{StatusCode, Uri};
use error::{ApiError, Problem};

async fn unknown_path(uri: Uri) -> ApiError {
    let problem = Problem::new("unknown-path", format!("no such path: {}", uri.path()), "");
    ApiError::new(StatusCode::NOT_FOUND, problem)
}

//! How a refusal looks to a client: an HTTP status, a stable code, a sentence, and the way out.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::operation::Denied;
use crate::operation::effects::HostError;

/// A refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Stable name for programs, like `unknown-gang`.
    pub code: String,
    /// What was refused and why.
    pub message: String,
    /// What to do about it; empty if the message says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Problem {
    /// A refusal with its way out.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// A refusal with its HTTP status.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub problem: Problem,
}

impl ApiError {
    /// A refusal.
    pub fn new(status: StatusCode, problem: Problem) -> Self {
        Self { status, problem }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

/// The texts of an error and of everything that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// For a task of ours that did not end by itself.
pub(super) fn panicked(error: tokio::task::JoinError) -> ApiError {
    let problem = Problem::new("internal", format!("the request's task: {error}"), "");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem)
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Denied(denial) => denial.into(),
            HostError::Unreachable { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                Problem::new("unreachable", error.to_string(), ""),
            ),
            HostError::Failed { .. } | HostError::Gone { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Problem::new("failed", error.to_string(), ""),
            ),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Denial(denial) => denial.into(),
            Denied::Host(error) => error.into(),
            Denied::Journal(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Problem::new("journal", chain(&denied), "is there room on the disk?"),
            ),
        }
    }
}

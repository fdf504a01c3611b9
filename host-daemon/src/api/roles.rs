//! What users at other machines may ask for, by the role in their certificate.
//!
//! | role | may |
//! |---|---|
//! | viewer | every `GET` |
//! | operator | start and cancel operations, give up retries |
//! | admin | everything: start, end and run VMs, give back reservations |
//!
//! On the local socket everybody who may open it is an admin.

use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::audit::Caller;
use super::error::{ApiError, Problem};
use crate::config::Role;
use crate::peer::Identity;

/// What operators change.
const OPERATIONS: [&str; 2] = ["/v1/operations", "/v1/retries"];

/// The least role for a request. What is not known here is for admins.
fn needed(method: &Method, path: &str) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::Viewer,
        _ if OPERATIONS.iter().any(|under| path.starts_with(under)) => Role::Operator,
        _ => Role::Admin,
    }
}

/// Lets users do what their role allows, and nobody else anything.
pub async fn users_only(
    ConnectInfo(identity): ConnectInfo<Identity>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let needed = needed(method, path);
    let problem = match identity {
        Identity::User(user) if user.role >= needed => {
            request
                .extensions_mut()
                .insert(ConnectInfo(Caller::Remote(user)));
            return next.run(request).await;
        }
        Identity::User(user) => {
            warn!(%user, %method, path, "audit: refused");
            Problem::new(
                "role",
                format!("{method} {path} is for the role {needed}, and this is {user}"),
                format!("`symvirt pki user NAME --role {needed}` makes a certificate for it"),
            )
        }
        Identity::Peer(_) | Identity::Unknown => Problem::new(
            "certificates",
            "the certificate is not a user's",
            "`symvirt pki user NAME --role ROLE` makes one",
        ),
    };
    ApiError::new(StatusCode::FORBIDDEN, problem).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_nothing_is_for_all_and_what_is_not_known_for_admins_only() {
        let needs = |method: Method, path| needed(&method, path);
        assert_eq!(needs(Method::GET, "/v1/vms"), Role::Viewer);
        assert_eq!(needs(Method::POST, "/v1/operations"), Role::Operator);
        assert_eq!(needs(Method::DELETE, "/v1/retries/a-1"), Role::Operator);
        assert_eq!(needs(Method::POST, "/v1/vms"), Role::Admin);
        assert_eq!(needs(Method::DELETE, "/v1/reservations/a-1"), Role::Admin);
        assert_eq!(needs(Method::PUT, "/v1/anything"), Role::Admin);
    }
}

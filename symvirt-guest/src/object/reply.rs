//! Endpoints that UCX offers for the reply to an active message. They are real ones, which the
//! application must never hold.
//!
//! Mostly the application has an endpoint to that peer, or had one: then there is a route. If it
//! has none, UCX has made the real one itself, and its peer is not known to us: the application
//! gets an endpoint that no switch can make again, and the process vetoes switches from then on.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use symvirt_ffi::ucp::ErrHandler;

use super::endpoint::Endpoint;
use super::route::Route;
use super::worker::Worker;
use crate::process::gang;

/// Whom a waiting message may be replied to.
#[derive(Clone, Copy)]
pub enum Reply {
    Nobody,
    /// Whoever this route leads to, also after a switch.
    Over(Route),
    /// A real endpoint without a route, of this side of the worker.
    Unknown {
        real: *mut c_void,
        side: u64,
    },
}

impl Reply {
    /// Notes whom UCX names; on any thread that drives the worker.
    pub fn note(worker: &Worker, real: Option<*mut c_void>) -> Reply {
        let Some(real) = real else {
            return Reply::Nobody;
        };
        match worker.routes.route_of(real) {
            Some(route) => {
                // So that the next side has the route, too.
                endpoint_of(worker, route, real);
                Reply::Over(route)
            }
            None => Reply::Unknown {
                real,
                side: worker.side.load(Ordering::Relaxed),
            },
        }
    }

    /// An endpoint for the application, if there still is one.
    pub fn endpoint(self, worker: &Worker) -> Option<*const Endpoint> {
        match self {
            Reply::Nobody => None,
            Reply::Over(route) => worker
                .find_endpoint(|endpoint| endpoint.route == Some(route))
                .or_else(|| lost("its endpoint was closed")),
            Reply::Unknown { real, side } => {
                if side == worker.side.load(Ordering::Relaxed) {
                    Some(endpoint_over(worker, real))
                } else {
                    lost("no endpoint led to its sender before a switch")
                }
            }
        }
    }
}

fn lost(reason: &str) -> Option<*const Endpoint> {
    crate::log::error!("an active message that wants a reply cannot be replied to: {reason}");
    None
}

/// The application's endpoint over a real one in use, on its thread.
pub fn endpoint_over(worker: &Worker, real: *mut c_void) -> *const Endpoint {
    let is_over = |endpoint: &Endpoint| endpoint.real() == real;
    if let Some(known) = worker.find_endpoint(is_over) {
        return known;
    }
    if let Some(route) = worker.routes.route_of(real) {
        return endpoint_of(worker, route, real);
    }
    gang::block(
        "a peer to which no endpoint was made expects replies to its active messages \
         (UCP_AM_SEND_FLAG_REPLY)"
            .to_owned(),
    );
    worker.adopt(Endpoint::new(worker, real, None, ErrHandler::default()))
}

/// Any endpoint over a route, made if all were closed.
fn endpoint_of(worker: &Worker, route: Route, real: *mut c_void) -> *const Endpoint {
    worker
        .find_endpoint(|endpoint| endpoint.route == Some(route))
        .unwrap_or_else(|| {
            let untold = ErrHandler::default();
            worker.adopt(Endpoint::new(worker, real, Some(route), untold))
        })
}

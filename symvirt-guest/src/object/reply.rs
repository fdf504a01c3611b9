//! Endpoints that UCX offers for the reply to an active message. They are real ones, which the
//! application must never hold.
//!
//! Mostly the application has an endpoint to that peer, or had one: then there is a route. If it
//! has none, UCX has made the real one itself, and the message's [`Trailer`] tells whose it is: it
//! is a route from then on. Only a sender without the library leaves no trailer: the application
//! gets an endpoint that no switch can make again, and the process vetoes switches from then on.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use symvirt_ffi::ucp::ErrHandler;
use symvirt_protocol::trailer::Trailer;

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
    pub fn note(worker: &Worker, real: Option<*mut c_void>, trailer: Option<Trailer>) -> Reply {
        let Some(real) = real else {
            return Reply::Nobody;
        };
        match route_of(worker, real, trailer) {
            Some((route, real)) => {
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
                    Some(endpoint_over(worker, real, None))
                } else {
                    lost("its sender runs without libsymvirt, and a switch came in between")
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
pub fn endpoint_over(
    worker: &Worker,
    real: *mut c_void,
    trailer: Option<Trailer>,
) -> *const Endpoint {
    let is_over = |endpoint: &Endpoint| endpoint.real() == real;
    if let Some(known) = worker.find_endpoint(is_over) {
        return known;
    }
    if let Some((route, real)) = route_of(worker, real, trailer) {
        return endpoint_of(worker, route, real);
    }
    gang::block(
        "a peer without libsymvirt expects replies to its active messages \
         (UCP_AM_SEND_FLAG_REPLY)"
            .to_owned(),
    );
    worker.adopt(Endpoint::new(worker, real, None, ErrHandler::default()))
}

/// The route that a real endpoint is of, or is from now on, and the route's own real endpoint.
fn route_of(
    worker: &Worker,
    real: *mut c_void,
    trailer: Option<Trailer>,
) -> Option<(Route, *mut c_void)> {
    let known = worker.routes.route_of(real).map(|route| (route, real));
    known.or_else(|| {
        let route = Route::back(trailer?);
        Some((route, worker.routes.learn(route, real)))
    })
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

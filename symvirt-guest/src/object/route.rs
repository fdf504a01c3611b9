//! Routes: the real endpoints of a worker.
//!
//! UCX pairs the endpoints of two workers by the order in which each side made them. A switch
//! begins that order anew, and it may fall between one side's closing of an endpoint and the
//! other's: later endpoints would pair with one that is about to be closed, and lose what is
//! under way when that happens. So there is one real endpoint to each peer, made once an epoch
//! and let go only with its worker; all endpoints that the application makes to that peer lead
//! over it, and closing one of them flushes it. The order no longer matters.
//!
//! ```text
//!   ucp_ep_create ─► known? ── yes ──────────────────► in use
//!                      └─ no ─► connect ─► in use ◄─┐    │ last endpoint closed
//!                                           reused  └─ idle ── switch, or end of the worker ─► gone
//!                      the peer is lost, or operations are ended by force ──────────────────► gone
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;

use symvirt_ffi::flags::ep_param;
use symvirt_ffi::ucp::{EpParams, ErrHandler};
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::WorkerId;
use symvirt_protocol::trailer::Trailer;

use super::worker::Worker;
use super::{endpoint, lock};
use crate::real::real;

/// What makes two endpoints lead over the same real one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// The worker at the other end.
    pub peer: WorkerId,
    /// `ucp_err_handling_mode_t` of the application.
    pub err_mode: u32,
    /// `ucp_ep_params_flags_field` of the application.
    pub flags: u32,
}

impl Route {
    /// The way back to the sender of a message.
    pub fn back(trailer: Trailer) -> Route {
        Route {
            peer: trailer.sender,
            err_mode: trailer.err_mode.into(),
            flags: 0,
        }
    }

    /// Makes a real endpoint of `real_worker`, the present side of `worker` or a coming one.
    ///
    /// # Errors
    /// UCX's.
    pub fn connect(
        &self,
        worker: &Worker,
        real_worker: *mut c_void,
        address: &[u8],
    ) -> Result<*mut c_void, Status> {
        let params = EpParams {
            field_mask: ep_param::REMOTE_ADDRESS
                | ep_param::ERR_HANDLING_MODE
                | ep_param::ERR_HANDLER
                | ep_param::FLAGS,
            address: address.as_ptr().cast_mut().cast(),
            err_mode: self.err_mode,
            err_handler: ErrHandler {
                cb: Some(on_error),
                arg: ptr::from_ref(worker).cast_mut().cast(),
            },
            flags: self.flags,
            ..EpParams::default()
        };
        let mut endpoint = ptr::null_mut();
        // SAFETY: a live worker, our parameters, and a place for the result.
        match unsafe { (real().ep_create)(real_worker, &raw const params, &raw mut endpoint) } {
            Status::OK => Ok(endpoint),
            status => Err(status),
        }
    }
}

/// Real endpoints of one side of a worker.
pub type Reals = HashMap<Route, *mut c_void>;

/// The routes of a worker in this epoch, in use or idle.
#[derive(Default)]
pub struct Routes(Mutex<Reals>);

impl Routes {
    /// The real endpoint of a route, made if there is none.
    ///
    /// # Errors
    /// UCX's.
    pub fn get(
        &self,
        route: Route,
        worker: &Worker,
        address: &[u8],
    ) -> Result<*mut c_void, Status> {
        match lock(&self.0).entry(route) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(place) => {
                let real = route.connect(worker, worker.sending_real(), address)?;
                Ok(*place.insert(real))
            }
        }
    }

    /// The real endpoint of a route, if there is one.
    pub fn known(&self, route: Route) -> Option<*mut c_void> {
        lock(&self.0).get(&route).copied()
    }

    /// Takes a real endpoint off the list; whether it was on it.
    pub fn forget(&self, real: *mut c_void) -> bool {
        let mut routes = lock(&self.0);
        let before = routes.len();
        routes.retain(|_, known| *known != real);
        routes.len() < before
    }

    /// The route that a real endpoint is of; `None` if UCX has made it by itself.
    pub fn route_of(&self, real: *mut c_void) -> Option<Route> {
        let routes = lock(&self.0);
        let found = routes.iter().find(|(_, known)| **known == real);
        found.map(|(route, _)| *route)
    }

    /// Takes a real endpoint that UCX has made by itself for the route's own, unless it has one;
    /// returns the route's own.
    pub fn learn(&self, route: Route, real: *mut c_void) -> *mut c_void {
        *lock(&self.0).entry(route).or_insert(real)
    }

    /// Whether the route is as good as when it was made.
    pub fn is_sound(&self, real: *mut c_void) -> bool {
        lock(&self.0).values().any(|known| *known == real)
    }

    /// A new epoch; under the closed gate.
    pub fn replace(&self, reals: Reals) {
        *lock(&self.0) = reals;
    }
}

/// The peer is lost: says so to every endpoint that leads over the route. Errors of a side that is
/// not in use are nobody's concern, and neither are those of an idle route: a peer may end once
/// the endpoints to it are closed. Those met on a helper are logged, and come again when the
/// application uses the endpoint.
unsafe extern "C" fn on_error(arg: *mut c_void, real_endpoint: *mut c_void, status: Status) {
    // SAFETY: `arg` was given by `connect`; a worker outlives its real endpoints.
    let worker = unsafe { &*arg.cast::<Worker>() };
    let mut concerned = Vec::new();
    worker.each_endpoint(|endpoint| {
        if endpoint.real() == real_endpoint {
            concerned.push(ptr::from_ref(endpoint));
        }
    });
    if crate::tls::is_helper() {
        if !concerned.is_empty() {
            crate::log::warning!("an endpoint failed during a switch: {status}");
        }
        return;
    }
    worker.routes.forget(real_endpoint);
    for endpoint in concerned {
        // The handler of one may have closed another.
        if worker.has_endpoint(endpoint) {
            // SAFETY: listed, and on an application thread.
            unsafe { endpoint::fail(endpoint, status) };
        }
    }
}

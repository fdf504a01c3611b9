//! Making, waking and closing endpoints.
//!
//! ```text
//!           used in this epoch or the last, or new          ┌────────── used ─────────┐
//!   awake ────────────────────────────────────────► twin in the prepare phase ─► awake │
//!     └── silent for an epoch and up to the prepare phase ─► no twin ─► asleep ────────┘
//! ```
//!
//! A switch makes a twin of each endpoint that is in use, and a greeting wires it up. One that has
//! been silent for long sleeps in the next epoch: it leads nowhere until it is used. Then its thread
//! asks the agent for the peer's address ([`gang::reach`]) and makes the real endpoint. Either UCX
//! wires it up by its first message, as any endpoint that is made in mid-epoch, or the peer's
//! greeting has come before: UCX then holds its own end of the connection ready, and takes that.
//! A peer whose twin greets a sleeping endpoint needs nothing of this process but its worker.
//!
//! Whether endpoints sleep is decided by each process for itself.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use symvirt_ffi::flags::{close, ep_param, op};
use symvirt_ffi::ucp::{EpParams, ErrHandler, RequestParam};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::gang;
use crate::address::{self, Kind, Parsed};
use crate::object::endpoint::{Endpoint, copy_params, error_handler};
use crate::object::route::Route;
use crate::object::worker::Worker;
use crate::real::real;
use crate::transfer::send;

/// How long an endpoint to a peer that has already changed over waits for this process to follow.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);

/// Makes an endpoint of a worker of ours.
///
/// # Errors
/// UCX's; [`Status::TIMED_OUT`] if the peer is in an epoch that this process does not reach.
///
/// # Safety
/// `params` is readable by its `field_mask`.
pub unsafe fn create(worker: &Worker, params: *const EpParams) -> Result<*const Endpoint, Status> {
    // SAFETY: by the caller's promise.
    let mask = unsafe { (*params).field_mask };
    if mask & (ep_param::SOCK_ADDR | ep_param::CONN_REQUEST) != 0 {
        gang::block("an endpoint is connected by socket address (ucp_ep_create)".to_owned());
        // SAFETY: by the caller's promise.
        return unsafe { create_unmovable(worker, params) };
    }
    if mask & ep_param::REMOTE_ADDRESS == 0 {
        return Err(Status::INVALID_PARAM);
    }
    // SAFETY: an address that a worker, ours or plain UCX's, has packed.
    let Some(parsed) = (unsafe { address::parse(Kind::Worker, (*params).address.cast()) }) else {
        gang::block("a peer runs without libsymvirt (ucp_ep_create)".to_owned());
        // SAFETY: by the caller's promise.
        return unsafe { create_unmovable(worker, params) };
    };
    follow(&parsed)?;
    // SAFETY: by the caller's promise.
    let asked = unsafe { copy_params(params) };
    let route = Route {
        peer: parsed.object,
        err_mode: asked.err_mode,
        flags: asked.flags,
    };
    let _inside = worker.enter();
    let current = gang::current(&parsed)?;
    let real = worker.routes.get(route, worker, &current)?;
    Ok(worker.adopt(Endpoint::new(
        worker,
        real,
        Some(route),
        error_handler(&asked),
    )))
}

/// Lets an endpoint lead to its peer, as it does not since the last switch; whether it does now.
/// What it does not wake for: to be closed or flushed, as nothing is under way.
#[cold]
#[inline(never)]
pub fn wake(endpoint: &Endpoint) -> bool {
    let Some(route) = endpoint.route else {
        return false;
    };
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    match connect(worker, route) {
        Ok(real) => endpoint.set_real(real),
        Err(status) => crate::log::debug!("an endpoint to {}: {status}", route.peer),
    }
    !endpoint.is_asleep()
}

/// The real endpoint of a route in this epoch, made if there is none.
///
/// # Errors
/// UCX's; [`Status::UNREACHABLE`] if the peer is gone.
pub fn connect(worker: &Worker, route: Route) -> Result<*mut c_void, Status> {
    match worker.routes.known(route) {
        Some(real) => Ok(real),
        None => {
            let address = gang::reach(route.peer)?.ok_or(Status::UNREACHABLE)?;
            worker.routes.get(route, worker, &address)
        }
    }
}

/// Ranks change over at slightly different moments. What leads to an object of the next epoch is
/// of no use before this process has changed over, which is then a matter of milliseconds.
///
/// # Errors
/// [`Status::TIMED_OUT`] if this process does not follow.
pub fn follow(parsed: &Parsed<'_>) -> Result<(), Status> {
    let start = Instant::now();
    while parsed.epoch > gang::epoch() && gang::is_member() {
        if start.elapsed() > FOLLOW_LIMIT {
            return Err(Status::TIMED_OUT);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// An endpoint that no switch can make again, with the application's own parameters.
unsafe fn create_unmovable(
    worker: &Worker,
    params: *const EpParams,
) -> Result<*const Endpoint, Status> {
    let _inside = worker.enter();
    let mut connected = std::ptr::null_mut();
    // SAFETY: the application's parameters, and a place for the result.
    match unsafe { (real().ep_create)(worker.real(), params, &raw mut connected) } {
        Status::OK => {}
        status => return Err(status),
    }
    // UCX tells the application of errors itself.
    let untold = ErrHandler::default();
    Ok(worker.adopt(Endpoint::new(worker, connected, None, untold)))
}

/// Makes an endpoint of a worker that is UCX's own; the peer's address may be one of ours.
///
/// # Safety
/// As `ucp_ep_create`.
pub unsafe fn create_unmoved(
    worker: *mut c_void,
    params: *const EpParams,
    endpoint: *mut *mut c_void,
) -> Status {
    // SAFETY: the application's arguments; UCX reads the copy by the same mask.
    unsafe {
        if (*params).field_mask & ep_param::REMOTE_ADDRESS != 0
            && let Some(parsed) = address::parse(Kind::Worker, (*params).address.cast())
        {
            let mut ours = copy_params(params);
            ours.address = parsed.bytes.as_ptr().cast_mut().cast();
            return (real().ep_create)(worker, &raw const ours, endpoint);
        }
        (real().ep_create)(worker, params, endpoint)
    }
}

/// Closes an endpoint as the parameters say. What it sent stays counted. The real one stays for the
/// next endpoint to that peer, see [`crate::object::route`], unless the route is broken, or broken
/// off by force under operations that are to end by that, and nobody else leads over it.
///
/// A peer that has closed its end may be gone before this process, kept by a switch, closes the
/// other; an application that handles no errors of endpoints (MPICH in its finalize) counts on
/// closing them nevertheless.
///
/// # Safety
/// Inside the gate; the application's handle, not used any more, and its parameters.
pub unsafe fn close(endpoint: &Endpoint, param: *const RequestParam) -> StatusPtr {
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    let real_endpoint = endpoint.real();
    let handles_errors = endpoint.route.is_none_or(|route| route.err_mode != 0);
    gang::retire(endpoint);
    // SAFETY: by the caller's promise.
    unsafe { worker.drop_endpoint(endpoint) };
    // SAFETY: `flags` only if announced.
    let by_force = unsafe {
        (*param).op_attr_mask & op::FLAGS != 0 && (*param).flags & close::FLAG_FORCE != 0
    };
    if real_endpoint.is_null() {
        return StatusPtr::OK;
    }
    let is_sound = worker.routes.is_sound(real_endpoint);
    if is_sound && by_force && !may_be_busy(worker) {
        // Were it closed here, and the peer's side of it later, a switch in between would lead
        // the peer's side to the next endpoint, which would be lost with it.
        return StatusPtr::OK;
    }
    let keep = is_sound && !by_force;
    let mut is_shared = false;
    worker.each_endpoint(|other| is_shared |= other.real() == real_endpoint);
    if is_shared && !keep {
        return StatusPtr::OK;
    }
    // SAFETY: by the caller's promise.
    let closed = unsafe {
        send::operation(None, worker, param, |param| {
            if keep {
                return (real().ep_flush_nbx)(real_endpoint, param);
            }
            worker.routes.forget(real_endpoint);
            (real().ep_close_nbx)(real_endpoint, param)
        })
    };
    match closed.status() {
        Status::CONNECTION_RESET | Status::ENDPOINT_TIMEOUT if !handles_errors => StatusPtr::OK,
        _ => closed,
    }
}

/// Whether operations may be under way that a close by force would have to end.
fn may_be_busy(worker: &Worker) -> bool {
    // SAFETY: a context outlives its workers.
    let uncounted = unsafe { &*worker.context }.is_one_sided();
    uncounted || worker.traffic.operations() > 0
}

//! Flushes and fences. UCX's blocking variants progress inside; ours start the operation and
//! wait outside the gate between two looks, so that a switch never waits for them.

use std::ffi::{c_uint, c_void};

use symvirt_ffi::flags::dt;
use symvirt_ffi::ucp::{RequestParam, SendCallback, SendNbxCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use crate::gate;
use crate::object::endpoint::Endpoint;
use crate::object::handle;
use crate::object::request::{self, Callback, Request};
use crate::object::worker::Worker;
use crate::real::real;
use crate::transfer::options::Options;
use crate::transfer::send;

/// The callback of an `nbx` operation that is not a receive.
pub fn send_callback(callback: *const c_void) -> Callback {
    // SAFETY: UCP's contract: the callback of such an operation has this type, or is null.
    Callback::SendNbx(unsafe { std::mem::transmute::<*const c_void, SendNbxCallback>(callback) })
}

fn flush_worker(worker: &Worker, options: &Options) -> StatusPtr {
    let _passage = gate::enter();
    // SAFETY: inside the gate, on the real worker in use.
    unsafe {
        send::operation(worker, options, |param| {
            (real().worker_flush_nbx)(worker.real(), param)
        })
    }
}

fn flush_endpoint(endpoint: &Endpoint, options: &Options) -> StatusPtr {
    let _passage = gate::enter();
    // SAFETY: inside the gate, on the real endpoint in use; a worker outlives its endpoints.
    unsafe {
        send::operation(&*endpoint.worker, options, |param| {
            (real().ep_flush_nbx)(endpoint.real(), param)
        })
    }
}

/// Progresses the worker until an operation of ours is complete; passes the gate each time.
///
/// # Safety
/// `started` was returned by an operation on `worker`; it is freed.
pub unsafe fn wait(worker: &Worker, started: StatusPtr) -> Status {
    let Some(user) = started.request() else {
        return started.status();
    };
    // SAFETY: by the caller's promise.
    let Some(request) = (unsafe { Request::from_user(user) }) else {
        return Status::INVALID_PARAM;
    };
    loop {
        // SAFETY: live until freed below.
        let status = unsafe { (*request).visible_status() };
        let _passage = gate::enter();
        if status != Status::INPROGRESS {
            // SAFETY: complete, and freed once.
            unsafe { request::free(request, false) };
            return status;
        }
        worker.deferred.deliver();
        // SAFETY: inside the gate, on the real worker in use.
        unsafe { (real().worker_progress)(worker.real()) };
    }
}

fn plain() -> Options {
    Options::plain(dt::BYTES, Callback::None)
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_flush_nbx(
    worker: *mut c_void,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        match handle::worker(worker) {
            None => (real().worker_flush_nbx)(worker, param),
            Some(ours) => flush_worker(ours, &Options::read(param, send_callback)),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_flush_nb(
    worker: *mut c_void,
    flags: c_uint,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        match handle::worker(worker) {
            None => rarely!(ucp_worker_flush_nb(
                    worker => *mut c_void, flags => c_uint, callback => SendCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED)),
            Some(ours) => flush_worker(ours, &Options::plain(dt::BYTES, Callback::Send(callback))),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_flush(worker: *mut c_void) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        match handle::worker(worker) {
            None => rarely!(ucp_worker_flush(worker => *mut c_void) -> Status,
                or Status::UNSUPPORTED),
            Some(ours) => wait(ours, flush_worker(ours, &plain())),
        }
    }
}

/// A context for tag matching alone orders nothing by a fence; the flush keeps the promise for
/// whatever UCX may count as outstanding, without blocking inside it.
///
/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_fence(worker: *mut c_void) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        match handle::worker(worker) {
            None => rarely!(ucp_worker_fence(worker => *mut c_void) -> Status,
                or Status::UNSUPPORTED),
            Some(ours) => wait(ours, flush_worker(ours, &plain())),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_flush_nbx(
    endpoint: *mut c_void,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        match handle::endpoint(endpoint) {
            None => (real().ep_flush_nbx)(endpoint, param),
            Some(ours) => flush_endpoint(ours, &Options::read(param, send_callback)),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_flush_nb(
    endpoint: *mut c_void,
    flags: c_uint,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        match handle::endpoint(endpoint) {
            None => rarely!(ucp_ep_flush_nb(
                    endpoint => *mut c_void, flags => c_uint, callback => SendCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED)),
            Some(ours) => {
                flush_endpoint(ours, &Options::plain(dt::BYTES, Callback::Send(callback)))
            }
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_flush(endpoint: *mut c_void) -> Status {
    // SAFETY: the application's arguments; a worker outlives its endpoints.
    unsafe {
        match handle::endpoint(endpoint) {
            None => rarely!(ucp_ep_flush(endpoint => *mut c_void) -> Status,
                or Status::UNSUPPORTED),
            Some(ours) => wait(&*ours.worker, flush_endpoint(ours, &plain())),
        }
    }
}

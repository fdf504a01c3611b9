//! Flushes and fences. UCX's blocking variants progress inside; ours start the operation and
//! wait outside the gate between two looks, so that a switch never waits for them.

use std::ffi::{c_uint, c_void};
use std::ptr;
use std::sync::atomic::{Ordering, fence};

use symvirt_ffi::flags::dt;
use symvirt_ffi::ucp::{RequestParam, SendCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use super::send::raw;
use crate::object::endpoint::Endpoint;
use crate::object::handle;
use crate::object::request::{self, Request};
use crate::object::worker::Worker;
use crate::real::real;
use crate::switch::flip;
use crate::transfer::begin::plain;
use crate::transfer::send;
use crate::transfer::short::Short;

/// # Safety
/// `param` is the application's.
unsafe fn flush_worker(worker: &Worker, param: *const RequestParam) -> StatusPtr {
    let _inside = flip::enter_when_over(worker);
    // SAFETY: inside the gate, on the real worker in use.
    unsafe {
        send::operation(None, worker, param, |param| {
            (real().worker_flush_nbx)(worker.sending_real(), param)
        })
    }
}

/// # Safety
/// `param` is the application's.
#[inline(always)]
unsafe fn flush_endpoint(endpoint: &Endpoint, param: *const RequestParam) -> StatusPtr {
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    // SAFETY: by the caller's promise; inside the gate, as asked for.
    unsafe {
        if let Some(short) = Short::of_other(worker, param)
            && worker.ahead().is_null()
        {
            return flush_inside(endpoint, worker, param, Some(&short));
        }
        let _inside = flip::enter_when_over(worker);
        flush_inside(endpoint, worker, param, None)
    }
}

/// # Safety
/// As [`flush_endpoint`], inside the gate.
#[inline(always)]
unsafe fn flush_inside(
    endpoint: &Endpoint,
    worker: &Worker,
    param: *const RequestParam,
    short: Option<&Short>,
) -> StatusPtr {
    if endpoint.is_asleep() || !endpoint.is_used() {
        // What this process did by itself is over; others are to see it before what follows.
        fence(Ordering::Release);
        return StatusPtr::OK;
    }
    // SAFETY: by the caller's promise; on the real endpoint in use.
    unsafe {
        send::operation(short, worker, param, |param| {
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
        let _inside = worker.enter();
        if status != Status::INPROGRESS {
            // SAFETY: complete, and freed once.
            unsafe { request::free(request) };
            return status;
        }
        if worker.deferred.deliver().is_some() {
            // SAFETY: inside the gate.
            unsafe { flip::progress(worker) };
        }
    }
}

fn no_callback() -> RequestParam {
    plain(dt::BYTES, ptr::null())
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
            Some(ours) => flush_worker(ours, param),
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
            Some(ours) => flush_worker(ours, &plain(dt::BYTES, raw(callback))),
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
            Some(ours) => wait(ours, flush_worker(ours, &no_callback())),
        }
    }
}

/// The flush keeps the promise of a fence, and more, without blocking inside UCX, which a strong
/// fence does.
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
            Some(ours) => wait(ours, flush_worker(ours, &no_callback())),
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
            Some(ours) => flush_endpoint(ours, param),
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
            Some(ours) => flush_endpoint(ours, &plain(dt::BYTES, raw(callback))),
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
            Some(ours) => wait(&*ours.worker, flush_endpoint(ours, &no_callback())),
        }
    }
}

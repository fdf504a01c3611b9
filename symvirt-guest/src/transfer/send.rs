//! Sends, and what completes as sends do.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::options::{Options, PASSED_FLAGS, discard};
use crate::object::endpoint::Endpoint;
use crate::object::request::{self, Kind, Request};
use crate::object::worker::Worker;
use crate::real::real;

unsafe extern "C" fn on_done(_: *mut c_void, status: Status, user_data: *mut c_void) {
    // SAFETY: `user_data` is the request of `operation`.
    unsafe { request::fired(user_data.cast(), status) };
}

/// Starts an operation other than a receive: `start` calls the real library.
///
/// # Safety
/// Inside the gate; `start` passes its argument on to a real operation on `worker`.
#[inline(always)]
pub unsafe fn operation(
    worker: &Worker,
    options: &Options,
    start: impl FnOnce(*const RequestParam) -> StatusPtr,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe { begin(worker, options, Kind::Operation, |_, param| start(param)).0 }
}

/// Starts an operation; says also whether it is under way still.
///
/// # Safety
/// As [`operation`].
#[inline(always)]
unsafe fn begin(
    worker: &Worker,
    options: &Options,
    kind: Kind,
    start: impl FnOnce(*mut Request, *const RequestParam) -> StatusPtr,
) -> (StatusPtr, bool) {
    let request = options.request(worker, kind);
    let param = options.real_param(
        request,
        on_done as *const c_void,
        options.mask & PASSED_FLAGS,
    );
    let result = start(request, &raw const param);
    let Some(real_request) = result.request() else {
        discard(worker, request, result.status());
        return (result, false);
    };
    // SAFETY: started just now.
    let pending = unsafe { request::returned(request, real_request) };
    if !pending {
        // SAFETY: fired, and not delivered; on an application thread.
        unsafe { request::deliver(request) };
    }
    (StatusPtr(Request::user(request)), pending)
}

/// Sends `count` elements to the endpoint's peer, and counts the message.
///
/// # Safety
/// Inside the gate; the arguments are those of a tagged send.
#[inline(always)]
pub unsafe fn send(
    endpoint: &Endpoint,
    buffer: *const c_void,
    count: usize,
    tag: u64,
    options: &Options,
) -> StatusPtr {
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    // SAFETY: by the caller's promise.
    let result = unsafe {
        operation(worker, options, |param| {
            (real().tag_send_nbx)(endpoint.real(), buffer, count, tag, param)
        })
    };
    if result.request().is_some() || result == StatusPtr::OK {
        endpoint.count_sent(worker.shared);
    }
    result
}

/// Sends synchronously: complete when the receiver has matched the message.
///
/// # Safety
/// As [`send`].
pub unsafe fn send_sync(
    endpoint: &Endpoint,
    buffer: *const c_void,
    count: usize,
    tag: u64,
    options: &Options,
) -> StatusPtr {
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    let mut started = ptr::null_mut();
    // SAFETY: by the caller's promise.
    let (result, pending) = unsafe {
        begin(worker, options, Kind::SyncSend, |request, param| {
            started = request;
            if let Some(peer) = endpoint.peer() {
                worker.syncs.started(request, worker.id, peer, tag);
            }
            (real().tag_send_sync_nbx)(endpoint.real(), buffer, count, tag, param)
        })
    };
    if !pending {
        worker.syncs.forget(started);
    }
    if result.request().is_some() || result == StatusPtr::OK {
        endpoint.count_sent(worker.shared);
    }
    result
}

//! Sends, and what completes as sends do.

use std::ffi::c_void;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::begin::{CUT_OFF, begin, discard, note};
use super::short::Short;
use crate::object::datatype;
use crate::object::endpoint::Endpoint;
use crate::object::request::{self, Kind, Request};
use crate::object::worker::Worker;
use crate::process::endpoints::wake;
use crate::real::{found, real};

pub(super) unsafe extern "C" fn on_done(_: *mut c_void, status: Status, user_data: *mut c_void) {
    // SAFETY: `user_data` is the request of an operation.
    unsafe { fired(user_data.cast(), status, Kind::Operation) };
}

unsafe extern "C" fn on_matched(_: *mut c_void, status: Status, user_data: *mut c_void) {
    // SAFETY: `user_data` is the request of a synchronous send.
    unsafe { fired(user_data.cast(), status, Kind::SyncSend) };
}

/// # Safety
/// As [`request::fired`].
#[inline(always)]
pub unsafe fn fired(request: *mut Request, status: Status, kind: Kind) {
    // SAFETY: by the caller's promise; the worker outlives its requests.
    unsafe {
        let worker = &*(*request).worker;
        request::fired(request, worker, status, kind);
    }
}

/// What an operation sends.
#[derive(Clone, Copy)]
pub struct Payload {
    pub buffer: *const c_void,
    /// Elements of the parameters' datatype.
    pub count: usize,
}

impl Payload {
    /// Nothing that a receiver would have to keep.
    pub const NONE: Payload = Payload {
        buffer: std::ptr::null(),
        count: 0,
    };
}

/// Starts an operation other than a receive or a send: `call` calls the real library.
///
/// # Safety
/// Inside the gate, by the short way of `worker` if there is one; `call` passes its argument on to
/// a real operation on `worker`, and `param` is the application's.
#[inline(always)]
pub unsafe fn operation(
    short: Option<&Short>,
    worker: &Worker,
    param: *const RequestParam,
    call: impl FnOnce(*mut RequestParam) -> StatusPtr,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        match short {
            Some(short) => short.start(worker, param, Payload::NONE, call),
            None => sending(worker, param, Payload::NONE, call),
        }
    }
}

/// As [`operation`], of a send.
///
/// # Safety
/// As [`operation`]; `payload` is what the application sends.
pub unsafe fn sending(
    worker: &Worker,
    param: *const RequestParam,
    payload: Payload,
    call: impl FnOnce(*mut RequestParam) -> StatusPtr,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe { sending_ended_by(on_done as *const c_void, worker, param, payload, call) }
}

/// Starts a send that completes by this callback of ours, which calls [`fired`].
///
/// # Safety
/// As [`sending`].
pub unsafe fn sending_ended_by(
    callback: *const c_void,
    worker: &Worker,
    param: *const RequestParam,
    payload: Payload,
    call: impl FnOnce(*mut RequestParam) -> StatusPtr,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        let request = begin(worker, param, callback);
        let result = call(&raw mut (*request).param);
        match result.request() {
            None => discard(worker, request, result.status()),
            Some(real) => {
                return started(worker, request, real, param, payload, Kind::Operation);
            }
        }
        result
    }
}

/// The real call has returned a request.
///
/// # Safety
/// As [`operation`], just after the call.
#[cold]
pub(super) unsafe fn started(
    worker: &Worker,
    request: *mut Request,
    real_request: *mut c_void,
    param: *const RequestParam,
    payload: Payload,
    kind: Kind,
) -> StatusPtr {
    // SAFETY: by the caller's promise; what has fired already is delivered here, on an
    // application thread.
    unsafe {
        let asked = (*param).op_attr_mask;
        note(request, param, asked, kind);
        let bytes = match (payload.count, asked & op::DATATYPE) {
            (0, _) => 0,
            (count, 0) => count,
            (count, _) => datatype::length(payload.buffer, count, (*param).datatype) as usize,
        };
        (*request).posting.count = bytes;
        if request::returned(request, worker, real_request, kind) {
            if bytes > 0 {
                worker.traffic.sending_started(bytes);
            }
        } else {
            if kind == Kind::SyncSend {
                worker.syncs.forget(request);
            }
            request::deliver(request, kind);
        }
    }
    StatusPtr(Request::user(request))
}

/// Sends `count` elements to the endpoint's peer, and counts the message.
///
/// # Safety
/// The short way of the endpoint's worker; the arguments are those of a tagged send.
#[inline(always)]
pub unsafe fn send_short<Way>(
    short: &Short<Way>,
    endpoint: &Endpoint,
    payload: Payload,
    tag: u64,
    param: *const RequestParam,
) -> StatusPtr {
    let Payload { buffer, count } = payload;
    if endpoint.is_asleep() && !wake(endpoint) {
        return StatusPtr::from_status(CUT_OFF);
    }
    // SAFETY: by the caller's promise; a worker outlives its endpoints.
    unsafe {
        short.start(&*endpoint.worker, param, payload, |told| {
            let result = (found().tag_send_nbx)(endpoint.real(), buffer, count, tag, told);
            if result.request().is_some() || result == StatusPtr::OK {
                endpoint.count_sent();
            }
            result
        })
    }
}

/// Sends as [`send_short`] does, in whatever circumstances.
///
/// # Safety
/// Inside the gate; the arguments are those of a tagged send.
pub unsafe fn send(
    endpoint: &Endpoint,
    buffer: *const c_void,
    count: usize,
    tag: u64,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise; a worker outlives its endpoints.
    unsafe {
        let worker = &*endpoint.worker;
        if endpoint.is_asleep() && !wake(endpoint) {
            return StatusPtr::from_status(CUT_OFF);
        }
        let payload = Payload { buffer, count };
        let result = sending(worker, param, payload, |told| {
            (real().tag_send_nbx)(endpoint.real(), buffer, count, tag, told)
        });
        if result.request().is_some() || result == StatusPtr::OK {
            endpoint.count_sent();
        }
        result
    }
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
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise; a worker outlives its endpoints.
    unsafe {
        let worker = &*endpoint.worker;
        if endpoint.is_asleep() && !wake(endpoint) {
            return StatusPtr::from_status(CUT_OFF);
        }
        let request = begin(worker, param, on_matched as *const c_void);
        if let Some(peer) = endpoint.peer() {
            worker.syncs.started(request, worker.id, peer, tag);
        }
        let told = &raw const (*request).param;
        let result = (real().tag_send_sync_nbx)(endpoint.real(), buffer, count, tag, told);
        let Some(real) = result.request() else {
            worker.syncs.forget(request);
            discard(worker, request, result.status());
            if result == StatusPtr::OK {
                endpoint.count_sent();
            }
            return result;
        };
        endpoint.count_sent();
        let payload = Payload { buffer, count };
        started(worker, request, real, param, payload, Kind::SyncSend)
    }
}

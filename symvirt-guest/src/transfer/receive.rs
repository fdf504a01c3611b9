//! Receives: posted on the real side, or answered from what a drain has taken into our memory.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use symvirt_ffi::flags::{dt, op};
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::begin::{begin, discard, note};
use crate::object::datatype;
use crate::object::message::{Body, Message};
use crate::object::request::{self, FIRED, Kind, Posting, RETURNED, Request};
use crate::object::worker::Worker;
use crate::real::real;

unsafe extern "C" fn on_received(
    _: *mut c_void,
    status: Status,
    info: *const TagRecvInfo,
    user_data: *mut c_void,
) {
    let request = user_data.cast::<Request>();
    // SAFETY: `user_data` is the request of `post`; the worker outlives it.
    unsafe {
        let worker = &*(*request).worker;
        if status == Status::OK && !worker.shared {
            received(request, worker, status, info, false);
        } else {
            received_specially(request, worker, status, info);
        }
    }
}

/// # Safety
/// As [`received`].
#[cold]
unsafe fn received_specially(
    request: *mut Request,
    worker: &Worker,
    status: Status,
    info: *const TagRecvInfo,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        if status == Status::CANCELED && worker.reposting.load(Ordering::Relaxed) {
            request::take_back(&mut *request);
        } else {
            received(request, worker, status, info, worker.shared);
        }
    }
}

/// # Safety
/// `request` was posted on `worker` and has completed just now. `info` is valid until the callback
/// returns, or null.
#[inline(always)]
unsafe fn received(
    request: *mut Request,
    worker: &Worker,
    status: Status,
    info: *const TagRecvInfo,
    shared: bool,
) {
    worker.posted.remove(request, shared);
    if status != Status::CANCELED {
        worker.traffic.count_received(shared);
    }
    // SAFETY: by the caller's promise; called once per completion.
    unsafe {
        if !info.is_null() {
            (*request).info = *info;
        }
        request::fired(request, worker, status, Kind::Receive, shared);
    }
}

/// What became of a receive that was posted.
pub enum PostOutcome {
    Pending,
    /// It has fired; the caller delivers.
    Completed,
    Refused(Status),
}

/// Posts the receive that the request's recipe describes; it is on the list already.
///
/// # Safety
/// Inside the gate, on the worker's real side in use. `shared` is the worker's.
#[inline(always)]
pub unsafe fn post(worker: &Worker, request: *mut Request, shared: bool) -> PostOutcome {
    // SAFETY: the application's receive; the header is live.
    unsafe {
        let posting = &(*request).posting;
        let result = (real().tag_recv_nbx)(
            worker.real(),
            posting.buffer,
            posting.count,
            posting.tag,
            posting.mask,
            &raw const (*request).param,
        );
        match result.request() {
            None => PostOutcome::Refused(result.status()),
            Some(real) => match request::returned(request, worker, real, Kind::Receive, shared) {
                true => PostOutcome::Pending,
                false => PostOutcome::Completed,
            },
        }
    }
}

/// Receives by tag. `shared` is the worker's.
///
/// UCX 1.13 ignores a request for the description of an immediately completed receive: the real
/// library is asked for the callback always, and the inline one is caught.
///
/// # Safety
/// Inside the gate; the arguments are those of a tagged receive.
#[inline(always)]
pub unsafe fn receive(
    worker: &Worker,
    buffer: *mut c_void,
    count: usize,
    tag: u64,
    mask: u64,
    param: *const RequestParam,
    shared: bool,
) -> StatusPtr {
    // SAFETY: by the caller's promise; the header is exclusively ours until it is posted.
    unsafe {
        let request = begin(worker, param, on_received as *const c_void, shared);
        let header = &mut *request;
        header.param.op_attr_mask |= op::NO_IMM_CMPL;
        note(header, param, Kind::Receive);
        header.posting = Posting {
            buffer,
            count,
            tag,
            mask,
        };
        if !worker.drained.is_empty() && fill_from_drained(worker, request) {
            return finish(worker, request, Kind::Receive, shared);
        }
        worker.posted.push(request, shared);
        match post(worker, request, shared) {
            PostOutcome::Pending => StatusPtr(Request::user(request)),
            PostOutcome::Completed => finish(worker, request, Kind::Receive, shared),
            PostOutcome::Refused(status) => refused(worker, request, status),
        }
    }
}

/// # Safety
/// The request is on the list and the real library did not take it.
#[cold]
unsafe fn refused(worker: &Worker, request: *mut Request, status: Status) -> StatusPtr {
    worker.posted.remove(request, worker.shared);
    // SAFETY: by the caller's promise.
    unsafe { discard(worker, request, status, worker.shared) };
    StatusPtr::from_status(status)
}

/// Receives a probed message.
///
/// # Safety
/// Inside the gate; the arguments are those of a message receive.
pub unsafe fn receive_message(
    worker: &Worker,
    buffer: *mut c_void,
    count: usize,
    message: Message,
    param: *const RequestParam,
) -> StatusPtr {
    let (kind, shared) = (Kind::MessageReceive, worker.shared);
    // SAFETY: by the caller's promise; the message was removed by a probe and is received once.
    unsafe {
        let request = begin(worker, param, on_message as *const c_void, shared);
        let header = &mut *request;
        header.param.op_attr_mask |= op::NO_IMM_CMPL;
        note(header, param, kind);
        header.info = message.info;
        header.posting.buffer = buffer;
        header.posting.count = count;
        let real_message = match message.body {
            Body::Real(real_message) => real_message,
            Body::Drained(data) => {
                fill(request, message.info, &data);
                return finish(worker, request, kind, shared);
            }
        };
        let told = &raw const header.param;
        let result = (real().tag_msg_recv_nbx)(worker.real(), buffer, count, real_message, told);
        match result.request() {
            None => {
                discard(worker, request, result.status(), shared);
                result
            }
            Some(real) if request::returned(request, worker, real, kind, shared) => {
                StatusPtr(Request::user(request))
            }
            Some(_) => finish(worker, request, kind, shared),
        }
    }
}

unsafe extern "C" fn on_message(
    _: *mut c_void,
    status: Status,
    _info: *const TagRecvInfo,
    user_data: *mut c_void,
) {
    let request = user_data.cast::<Request>();
    // SAFETY: `user_data` is the request of `receive_message`; the worker outlives it.
    unsafe {
        let worker = &*(*request).worker;
        request::fired(request, worker, status, Kind::MessageReceive, worker.shared);
    }
}

/// Completes a receive by what a drain has taken, if that has a message for it.
///
/// # Safety
/// As [`fill`].
#[cold]
unsafe fn fill_from_drained(worker: &Worker, request: *mut Request) -> bool {
    // SAFETY: by the caller's promise.
    let posting = unsafe { &(*request).posting };
    let Some(message) = worker.drained.take(posting.tag, posting.mask) else {
        return false;
    };
    // SAFETY: as above.
    unsafe { fill(request, message.info, &message.data) };
    true
}

/// Completes a receive from our memory.
///
/// # Safety
/// The request is exclusively ours, and never seen by the real library.
unsafe fn fill(request: *mut Request, info: TagRecvInfo, data: &[u8]) {
    // SAFETY: by the caller's promise.
    let header = unsafe { &mut *request };
    let Posting { buffer, count, .. } = header.posting;
    header.info = info;
    let datatype = match header.param.op_attr_mask & op::DATATYPE {
        0 => dt::BYTES,
        _ => header.param.datatype,
    };
    // SAFETY: buffer, count and datatype of the application's receive.
    let status = unsafe { datatype::unpack(data, buffer, count, datatype) };
    header.status.store(status.0, Ordering::Relaxed);
    header.set(FIRED | RETURNED, false);
}

/// Tells the application of a receive that completed at once, as it has asked.
///
/// # Safety
/// The request has fired and is not delivered; on an application thread.
unsafe fn finish(worker: &Worker, request: *mut Request, kind: Kind, shared: bool) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        let header = &*request;
        if header.asked & op::NO_IMM_CMPL != 0 {
            request::deliver(request, kind, shared);
            return StatusPtr(Request::user(request));
        }
        let status = Status(header.status.load(Ordering::Relaxed));
        if header.asked & op::RECV_INFO != 0 {
            // The application's place for the description.
            header.param.recv_info.write(header.info);
        }
        discard(worker, request, status, shared);
        StatusPtr::from_status(status)
    }
}

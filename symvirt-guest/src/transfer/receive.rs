//! Receives: posted on the real side, or answered from what a drain has taken into our memory.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use symvirt_ffi::flags::{dt, op};
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::begin::{begin, discard, note, tell};
use crate::object::datatype;
use crate::object::message::{Body, Message};
use crate::object::request::{self, FIRED, Kind, Posting, RETURNED, Request};
use crate::object::worker::Worker;
use crate::real::{found, real};

/// What the real library is asked for always: the callback, also of what completes at once, and to
/// use our memory for its request.
///
/// UCX 1.13 ignores a request for the description of an immediately completed receive.
const IN_OURS: u32 = op::NO_IMM_CMPL | op::REQUEST;

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
        if status == Status::OK {
            request::copy_info(info, &raw mut (*request).info);
            received(request, worker, status);
        } else {
            received_specially(request, worker, status, info);
        }
    }
}

/// # Safety
/// As [`received`]; `info` is valid until the callback returns, or null.
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
            return;
        }
        if !info.is_null() {
            (*request).info = *info;
        }
        received(request, worker, status);
    }
}

/// # Safety
/// `request` was posted on `worker` and has completed just now; its description is copied.
#[inline(always)]
unsafe fn received(request: *mut Request, worker: &Worker, status: Status) {
    worker.posted.remove(request);
    if status != Status::CANCELED {
        worker.traffic.count_received();
    }
    // SAFETY: by the caller's promise; called once per completion.
    unsafe { request::fired(request, worker, status, Kind::Receive) };
}

/// What became of a receive that was posted.
pub enum PostOutcome {
    Pending,
    /// It has fired; the caller delivers.
    Completed,
    Refused(Status),
}

/// Posts a receive whose request has its parameters and is on the list.
///
/// # Safety
/// Inside the gate, on the worker's real side in use; the arguments are those of a tagged receive.
#[inline(always)]
unsafe fn post(
    worker: &Worker,
    request: *mut Request,
    buffer: *mut c_void,
    count: usize,
    tag: u64,
    mask: u64,
) -> PostOutcome {
    // SAFETY: by the caller's promise; the header is live.
    unsafe {
        let told = &raw const (*request).param;
        let result = (found().tag_recv_nbx)(worker.real(), buffer, count, tag, mask, told);
        match result.request() {
            None => PostOutcome::Refused(result.status()),
            Some(real) => match request::returned(request, worker, real, Kind::Receive) {
                true => PostOutcome::Pending,
                false => PostOutcome::Completed,
            },
        }
    }
}

/// Posts a receive again that was taken back.
///
/// # Safety
/// Under the closed gate; the request is on the worker's list and not posted.
pub unsafe fn repost(worker: &Worker, request: *mut Request) -> PostOutcome {
    // SAFETY: by the caller's promise.
    unsafe {
        let Posting {
            buffer,
            count,
            tag,
            mask,
        } = (*request).posting;
        post(worker, request, buffer, count, tag, mask)
    }
}

/// Receives by tag: the short way, for a thread that is alone with the worker and asks for nothing
/// seldom.
///
/// # Safety
/// Inside the gate; the arguments are those of a tagged receive, `asked` is the mask of `param`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "six are the C function's")]
pub unsafe fn receive_short(
    worker: &Worker,
    buffer: *mut c_void,
    count: usize,
    tag: u64,
    mask: u64,
    param: *const RequestParam,
    asked: u32,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        let first = worker.pool.first();
        if first.is_null() || !worker.drained.is_empty() {
            return receive(worker, buffer, count, tag, mask, param);
        }
        let request = if asked & op::REQUEST == 0 {
            worker.pool.take_first(first);
            first
        } else {
            Request::in_users_memory(worker, (*param).request)
        };
        tell(request, param, asked, IN_OURS, on_received as *const c_void);
        note(request, param, asked, Kind::Receive);
        start(worker, request, buffer, count, tag, mask)
    }
}

/// Receives by tag, in whatever circumstances.
///
/// # Safety
/// Inside the gate; the arguments are those of a tagged receive.
#[inline(never)]
pub unsafe fn receive(
    worker: &Worker,
    buffer: *mut c_void,
    count: usize,
    tag: u64,
    mask: u64,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise; the header is exclusively ours until it is posted.
    unsafe {
        if !worker.drained.is_empty()
            && let Some(found) = worker.drained.take(tag, mask)
        {
            let message = Message::drained(found.info, found.body);
            return receive_message(worker, buffer, count, message, param);
        }
        let request = begin(worker, param, on_received as *const c_void);
        (*request).param.op_attr_mask |= IN_OURS;
        note(request, param, (*param).op_attr_mask, Kind::Receive);
        start(worker, request, buffer, count, tag, mask)
    }
}

/// Puts a receive at the end of the order and posts it.
///
/// # Safety
/// As [`post`], but the request is on no list yet.
#[inline(always)]
unsafe fn start(
    worker: &Worker,
    request: *mut Request,
    buffer: *mut c_void,
    count: usize,
    tag: u64,
    mask: u64,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        (*request).posting = Posting {
            buffer,
            count,
            tag,
            mask,
        };
        worker.posted.push(request);
        match post(worker, request, buffer, count, tag, mask) {
            PostOutcome::Pending => StatusPtr(Request::user(request)),
            PostOutcome::Completed => finish(request, Kind::Receive),
            PostOutcome::Refused(status) => refused(request, status),
        }
    }
}

/// # Safety
/// The request is on the list, and the real library did not take it.
#[cold]
unsafe fn refused(request: *mut Request, status: Status) -> StatusPtr {
    // SAFETY: by the caller's promise; the worker outlives its requests.
    unsafe {
        let worker = &*(*request).worker;
        worker.posted.remove(request);
        discard(worker, request, status);
    }
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
    let kind = Kind::MessageReceive;
    // SAFETY: by the caller's promise; the message was removed by a probe and is received once.
    unsafe {
        let request = begin(worker, param, on_message as *const c_void);
        let header = &mut *request;
        header.param.op_attr_mask |= IN_OURS;
        note(request, param, (*param).op_attr_mask, kind);
        header.info = message.info;
        let real_message = match message.body {
            Body::Real(real_message) => real_message,
            Body::Drained(data) => {
                fill(request, buffer, count, message.info, &data);
                return finish(request, kind);
            }
        };
        let told = &raw const header.param;
        let result = (real().tag_msg_recv_nbx)(worker.real(), buffer, count, real_message, told);
        match result.request() {
            None => {
                discard(worker, request, result.status());
                result
            }
            Some(real) if request::returned(request, worker, real, kind) => {
                StatusPtr(Request::user(request))
            }
            Some(_) => finish(request, kind),
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
        request::fired(request, worker, status, Kind::MessageReceive);
    }
}

/// Completes a receive from our memory.
///
/// # Safety
/// The request is exclusively ours, and never seen by the real library; buffer and count are the
/// application's.
pub(super) unsafe fn fill(
    request: *mut Request,
    buffer: *mut c_void,
    count: usize,
    info: TagRecvInfo,
    data: &[u8],
) {
    // SAFETY: by the caller's promise.
    let header = unsafe { &mut *request };
    header.info = info;
    let datatype = match header.param.op_attr_mask & op::DATATYPE {
        0 => dt::BYTES,
        _ => header.param.datatype,
    };
    // SAFETY: buffer, count and datatype of the application's receive.
    let status = unsafe { datatype::unpack(data, buffer, count, datatype) };
    header.status.store(status.0, Ordering::Relaxed);
    header.set(FIRED | RETURNED);
}

/// Tells the application of a receive that completed at once, as it has asked.
///
/// # Safety
/// The request has fired and is not delivered; on an application thread.
#[inline(never)]
pub(super) unsafe fn finish(request: *mut Request, kind: Kind) -> StatusPtr {
    // SAFETY: by the caller's promise; the worker outlives its requests.
    unsafe {
        let header = &*request;
        let worker = &*header.worker;
        if header.asked & op::NO_IMM_CMPL != 0 {
            request::deliver(request, kind);
            return StatusPtr(Request::user(request));
        }
        let status = Status(header.status.load(Ordering::Relaxed));
        if header.asked & op::RECV_INFO != 0 {
            // The application's place for the description, or of a fetch for the length.
            if kind == Kind::Fetch {
                let length = header.param.recv_info.cast::<usize>();
                length.write(header.info.length);
            } else {
                header.param.recv_info.write(header.info);
            }
        }
        discard(worker, request, status);
        StatusPtr::from_status(status)
    }
}

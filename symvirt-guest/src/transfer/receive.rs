//! Receives: posted on the real side, or answered from what a drain has taken into our memory.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::options::{Options, discard};
use crate::object::datatype;
use crate::object::drained::DrainedMessage;
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
    let (header, worker) = unsafe { (&mut *request, &*(*request).worker) };
    if status == Status::CANCELED && worker.reposting.load(Ordering::Relaxed) {
        request::take_back(header);
        return;
    }
    worker.posted.remove(request);
    if status != Status::CANCELED {
        worker.traffic.count_received(worker.shared);
    }
    if !info.is_null() {
        // SAFETY: UCX passes a valid description, gone when the callback returns.
        header.info = unsafe { *info };
    }
    // SAFETY: called once per completion.
    unsafe { request::fired(request, status) };
}

/// What became of a receive that was posted.
pub enum PostOutcome {
    Pending,
    /// It has fired; the caller delivers.
    Completed,
    Refused(Status),
}

/// Posts the receive that the request's recipe describes, at the end of the order.
///
/// UCX 1.13 ignores a request for the description of an immediately completed receive: ask for
/// the callback always, and catch the inline one.
///
/// # Safety
/// Inside the gate; the request is on no list.
#[inline(always)]
pub unsafe fn post(worker: &Worker, request: *mut Request) -> PostOutcome {
    worker.posted.push(request);
    // SAFETY: by the caller's promise.
    match unsafe { post_real(worker, request) } {
        PostOutcome::Refused(status) => {
            worker.posted.remove(request);
            PostOutcome::Refused(status)
        }
        outcome => outcome,
    }
}

/// Posts on the real worker only: the request is on the list already.
///
/// # Safety
/// Inside the gate.
#[inline(always)]
pub unsafe fn post_real(worker: &Worker, request: *mut Request) -> PostOutcome {
    // SAFETY: a live request.
    let posting = unsafe { (*request).posting };
    let param = RequestParam {
        op_attr_mask: op::CALLBACK
            | op::USER_DATA
            | op::DATATYPE
            | op::NO_IMM_CMPL
            | if posting.memory_type.is_some() {
                op::MEMORY_TYPE
            } else {
                0
            },
        flags: 0,
        request: ptr::null_mut(),
        cb: on_received as *const c_void,
        datatype: posting.datatype,
        user_data: request.cast(),
        reply_buffer: ptr::null_mut(),
        memory_type: posting.memory_type.unwrap_or(0),
        recv_info: ptr::null_mut(),
        memh: ptr::null_mut(),
    };
    // SAFETY: the application's receive, on the real worker in use.
    let result = unsafe {
        (real().tag_recv_nbx)(
            worker.real(),
            posting.buffer,
            posting.count,
            posting.tag,
            posting.mask,
            &raw const param,
        )
    };
    match result.request() {
        None => PostOutcome::Refused(result.status()),
        // SAFETY: started just now.
        Some(real_request) => match unsafe { request::returned(request, real_request) } {
            true => PostOutcome::Pending,
            false => PostOutcome::Completed,
        },
    }
}

/// Receives by tag. `immediate` says whether the variant returns null, without callback, for a
/// receive that completes at once (`nbx`).
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
    options: &Options,
    immediate: bool,
) -> StatusPtr {
    let request = options.request(worker, Kind::Receive);
    let memory_type = (options.mask & op::MEMORY_TYPE != 0).then_some(options.memory_type);
    let datatype = options.datatype;
    // SAFETY: exclusively ours until it is posted.
    unsafe {
        (*request).posting = Posting {
            buffer,
            count,
            datatype,
            memory_type,
            tag,
            mask,
        };
    }
    if !worker.drained.is_empty()
        && let Some(message) = worker.drained.take(tag, mask)
    {
        // SAFETY: as the receive itself.
        unsafe { fill(request, &message) };
        // SAFETY: as above.
        return unsafe { finish_receive(worker, request, options, immediate) };
    }
    // SAFETY: by the caller's promise.
    match unsafe { post(worker, request) } {
        PostOutcome::Pending => StatusPtr(Request::user(request)),
        // SAFETY: fired, and not delivered.
        PostOutcome::Completed => unsafe { finish_receive(worker, request, options, immediate) },
        PostOutcome::Refused(status) => {
            discard(worker, request, status);
            StatusPtr::from_status(status)
        }
    }
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
    options: &Options,
    immediate: bool,
) -> StatusPtr {
    let request = options.request(worker, Kind::MessageReceive);
    // SAFETY: exclusively ours until the operation starts.
    let header = unsafe { &mut *request };
    header.info = message.info;
    header.posting.buffer = buffer;
    header.posting.count = count;
    header.posting.datatype = options.datatype;
    let real_message = match message.body {
        Body::Real(real_message) => real_message,
        Body::Drained(data) => {
            // SAFETY: as the receive itself.
            unsafe {
                fill(
                    request,
                    &DrainedMessage {
                        info: message.info,
                        data,
                        syncs: Vec::new(),
                    },
                )
            };
            // SAFETY: as above.
            return unsafe { finish_receive(worker, request, options, immediate) };
        }
    };
    let param = options.real_param(request, on_message as *const c_void, op::NO_IMM_CMPL);
    // SAFETY: a message that the real worker's probe removed, received once.
    let result = unsafe {
        (real().tag_msg_recv_nbx)(worker.real(), buffer, count, real_message, &raw const param)
    };
    match result.request() {
        None => {
            discard(worker, request, result.status());
            result
        }
        // SAFETY: started just now.
        Some(real_request) => unsafe {
            if request::returned(request, real_request) {
                StatusPtr(Request::user(request))
            } else {
                finish_receive(worker, request, options, immediate)
            }
        },
    }
}

unsafe extern "C" fn on_message(
    _: *mut c_void,
    status: Status,
    _info: *const TagRecvInfo,
    user_data: *mut c_void,
) {
    // SAFETY: `user_data` is the request of `receive_message`.
    unsafe { request::fired(user_data.cast(), status) };
}

/// Completes a receive from our memory.
unsafe fn fill(request: *mut Request, message: &DrainedMessage) {
    // SAFETY: exclusively ours; never seen by the real library.
    let header = unsafe { &mut *request };
    let Posting {
        buffer,
        count,
        datatype,
        ..
    } = header.posting;
    header.info = message.info;
    // SAFETY: buffer, count and datatype of the application's receive.
    let status = unsafe { datatype::unpack(&message.data, buffer, count, datatype) };
    header.status.store(status.0, Ordering::Relaxed);
    header.set(FIRED | RETURNED, false);
}

/// Tells the application of a receive that completed at once, as its variant prescribes.
unsafe fn finish_receive(
    worker: &Worker,
    request: *mut Request,
    options: &Options,
    immediate: bool,
) -> StatusPtr {
    if immediate && options.mask & op::NO_IMM_CMPL == 0 {
        // SAFETY: fired, and not delivered.
        let (info, status) =
            unsafe { ((*request).info, (*request).status.load(Ordering::Relaxed)) };
        if !options.recv_info.is_null() {
            // SAFETY: the application's place for the description.
            unsafe { options.recv_info.write(info) };
        }
        discard(worker, request, Status(status));
        return StatusPtr::from_status(Status(status));
    }
    // SAFETY: fired, and not delivered; on an application thread.
    unsafe { request::deliver(request) };
    StatusPtr(Request::user(request))
}

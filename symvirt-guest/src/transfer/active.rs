//! Active messages: sending them, and fetching their data from the real side or from our memory.

use std::ffi::c_void;
use std::slice;

use symvirt_ffi::flags::{am_send, op};
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};
use symvirt_protocol::trailer::Trailer;

use super::begin::{CUT_OFF, begin, discard, note};
use super::receive::{fill, finish};
use super::send::{Payload, fired, sending, sending_ended_by};
use crate::object::descriptor::{Content, Descriptor};
use crate::object::endpoint::Endpoint;
use crate::object::handlers::WIDE;
use crate::object::request::{self, Kind, Request};
use crate::object::worker::Worker;
use crate::process::endpoints::wake;
use crate::real::real;

/// An active message's id and header.
#[derive(Clone, Copy)]
pub struct Head {
    pub id: u32,
    pub header: *const c_void,
    pub length: usize,
}

/// Sends an active message to the endpoint's peer, and counts it.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_am_send_nbx`.
pub unsafe fn send(
    endpoint: &Endpoint,
    head: Head,
    buffer: *const c_void,
    count: usize,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise; a worker outlives its endpoints.
    unsafe {
        let worker = &*endpoint.worker;
        if endpoint.is_asleep() && !wake(endpoint) {
            return StatusPtr::from_status(CUT_OFF);
        }
        let Head { id, header, length } = head;
        let (to, payload) = (endpoint.real(), Payload { buffer, count });
        let result = match trailer(endpoint, id, param) {
            None => sending(worker, param, payload, |told| {
                (real().am_send_nbx)(to, id, header, length, buffer, count, told)
            }),
            Some(trailer) => {
                let whole = match length {
                    0 => trailer.append(&[]),
                    _ => trailer.append(slice::from_raw_parts(header.cast(), length)),
                };
                let (header, length) = (whole.as_ptr().cast(), whole.len());
                let id = id.min(WIDE.into());
                let callback = on_sent as *const c_void;
                sending_ended_by(callback, worker, param, payload, |told| {
                    let request = (*told).user_data.cast::<Request>();
                    worker.headers.keep(request, whole);
                    let result = (real().am_send_nbx)(to, id, header, length, buffer, count, told);
                    if result.request().is_none() {
                        worker.headers.drop_of(request);
                    }
                    result
                })
            }
        };
        if result.request().is_some() || result == StatusPtr::OK {
            endpoint.count_sent();
        }
        result
    }
}

/// What the receiver has to be told beside the header, if it is of our gang.
///
/// # Safety
/// `param` is readable by its mask; the endpoint's worker lives.
#[inline(always)]
unsafe fn trailer(endpoint: &Endpoint, id: u32, param: *const RequestParam) -> Option<Trailer> {
    // SAFETY: by the caller's promise: the flags only if announced.
    let wants_reply =
        unsafe { (*param).op_attr_mask & op::FLAGS != 0 && (*param).flags & am_send::REPLY != 0 };
    if !wants_reply && id < WIDE.into() {
        return None;
    }
    let route = endpoint.route?;
    Some(Trailer {
        // SAFETY: by the caller's promise.
        sender: unsafe { &*endpoint.worker }.id,
        err_mode: route.err_mode.try_into().ok()?,
        id: id.try_into().ok()?,
    })
}

/// A message with a header of our making is sent.
unsafe extern "C" fn on_sent(_: *mut c_void, status: Status, user_data: *mut c_void) {
    let request = user_data.cast::<Request>();
    // SAFETY: `user_data` is the request of `send`; the worker outlives it.
    unsafe {
        (*(*request).worker).headers.drop_of(request);
        fired(request, status, Kind::Operation);
    }
}

/// Fetches a message's data into the application's buffer.
///
/// UCX completes the fetch of a rendezvous with bytes never at once (`ucp_am_recv_data_nbx` in
/// ucp_am.c, 1.13 to 1.20), and MPICH 4.2 relies on it: of one that is complete at once it
/// releases a request that it made on its stack (`MPIDI_UCX_do_am_recv`). So one that has its bytes
/// already completes at the next progress.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_am_recv_data_nbx`.
pub unsafe fn fetch(
    worker: &Worker,
    descriptor: Descriptor,
    buffer: *mut c_void,
    count: usize,
    param: *const RequestParam,
) -> StatusPtr {
    let kind = Kind::Fetch;
    // SAFETY: by the caller's promise; the descriptor is taken, and fetched once.
    unsafe {
        let request = begin(worker, param, on_fetched as *const c_void);
        let header = &mut *request;
        header.param.op_attr_mask |= op::NO_IMM_CMPL;
        note(request, param, (*param).op_attr_mask, kind);
        let info = TagRecvInfo {
            sender_tag: 0,
            length: descriptor.length,
        };
        let finish = if descriptor.is_rendezvous && count > 0 {
            finish_later
        } else {
            finish
        };
        let real_descriptor = match descriptor.content {
            Content::Rendezvous(real_descriptor) => real_descriptor,
            Content::Here(bytes) => {
                fill(request, buffer, count, info, bytes.as_slice());
                return finish(request, kind);
            }
            Content::Pulling => {
                // Only under the closed gate, where no application thread is.
                discard(worker, request, Status::BUSY);
                return StatusPtr::from_status(Status::BUSY);
            }
        };
        header.info = info;
        let told = &raw const header.param;
        let from = worker.real();
        let result = (real().am_recv_data_nbx)(from, real_descriptor, buffer, count, told);
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

/// Tells the application at its next progress.
///
/// # Safety
/// As [`finish`].
unsafe fn finish_later(request: *mut Request, _: Kind) -> StatusPtr {
    // SAFETY: by the caller's promise; a worker outlives its requests.
    unsafe { &*(*request).worker }.deferred.push(request);
    StatusPtr(Request::user(request))
}

unsafe extern "C" fn on_fetched(
    _: *mut c_void,
    status: Status,
    length: usize,
    user_data: *mut c_void,
) {
    let request = user_data.cast::<Request>();
    // SAFETY: `user_data` is the request of `fetch`; the worker outlives it.
    unsafe {
        let worker = &*(*request).worker;
        (*request).info.length = length;
        request::fired(request, worker, status, Kind::Fetch);
    }
}

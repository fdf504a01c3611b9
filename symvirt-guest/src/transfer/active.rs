//! Active messages: sending them, and fetching their data from the real side or from our memory.

use std::ffi::c_void;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::begin::{begin, discard, note};
use super::receive::{fill, finish};
use super::send::operation;
use crate::object::descriptor::{Content, Descriptor};
use crate::object::endpoint::Endpoint;
use crate::object::request::{self, Kind, Request};
use crate::object::worker::Worker;
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
        let Head { id, header, length } = head;
        let result = operation(worker, param, |told| {
            let to = endpoint.real();
            (real().am_send_nbx)(to, id, header, length, buffer, count, told)
        });
        if result.request().is_some() || result == StatusPtr::OK {
            endpoint.count_sent(worker.shared);
        }
        result
    }
}

/// Fetches a message's data into the application's buffer.
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
    let (kind, shared) = (Kind::Fetch, worker.shared);
    // SAFETY: by the caller's promise; the descriptor is taken, and fetched once.
    unsafe {
        let request = begin(worker, param, on_fetched as *const c_void, shared);
        let header = &mut *request;
        header.param.op_attr_mask |= op::NO_IMM_CMPL;
        note(request, param, (*param).op_attr_mask, kind);
        let info = TagRecvInfo {
            sender_tag: 0,
            length: descriptor.length,
        };
        let real_descriptor = match descriptor.content {
            Content::Rendezvous(real_descriptor) => real_descriptor,
            Content::Here(bytes) => {
                fill(request, buffer, count, info, bytes.as_slice());
                return finish(request, kind);
            }
            Content::Pulling => {
                // Only under the closed gate, where no application thread is.
                discard(worker, request, Status::BUSY, shared);
                return StatusPtr::from_status(Status::BUSY);
            }
        };
        header.info = info;
        let told = &raw const header.param;
        let from = worker.real();
        let result = (real().am_recv_data_nbx)(from, real_descriptor, buffer, count, told);
        match result.request() {
            None => {
                discard(worker, request, result.status(), shared);
                result
            }
            Some(real) if request::returned(request, worker, real, kind, shared) => {
                StatusPtr(Request::user(request))
            }
            Some(_) => finish(request, kind),
        }
    }
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
        request::fired(request, worker, status, Kind::Fetch, worker.shared);
    }
}

//! Probes, and receives of probed messages.

use std::ffi::{c_int, c_void};
use std::ptr;

use symvirt_ffi::ucp::{Datatype, RequestParam, Tag, TagRecvCallback, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use super::receive::plain_receive;
use crate::object::handle;
use crate::object::message::Body;
use crate::object::worker::Worker;
use crate::real::real;
use crate::transfer::receive::receive_message;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_probe_nb(
    worker: *mut c_void,
    tag: Tag,
    mask: Tag,
    remove: c_int,
    info: *mut TagRecvInfo,
) -> *mut c_void {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().tag_probe_nb)(worker, tag, mask, remove, info);
        };
        let _inside = ours.enter();
        if !ours.drained.is_empty()
            && let Some(found) = probe_drained(ours, tag, mask, remove != 0, info)
        {
            return found;
        }
        let found = (real().tag_probe_nb)(ours.real(), tag, mask, remove, info);
        if found.is_null() || remove == 0 {
            return found;
        }
        ours.traffic.count_probed();
        ours.messages.hand_out(*info, Body::Real(found))
    }
}

/// # Safety
/// `info` is the application's place for the description.
unsafe fn probe_drained(
    worker: &Worker,
    tag: Tag,
    mask: Tag,
    remove: bool,
    info: *mut TagRecvInfo,
) -> Option<*mut c_void> {
    if remove {
        let message = worker.drained.take(tag, mask)?;
        // SAFETY: by the caller's promise.
        unsafe { info.write(message.info) };
        return Some(worker.messages.hand_out(message.info, message.body));
    }
    let found = worker.drained.peek(tag, mask)?;
    // SAFETY: by the caller's promise.
    unsafe { info.write(found) };
    // Without removal the result says only that there is a message; it must not be received.
    Some(ptr::from_ref(worker).cast_mut().cast())
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_msg_recv_nbx(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    message: *mut c_void,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().tag_msg_recv_nbx)(worker, buffer, count, message, param);
        };
        let _inside = ours.enter();
        match ours.messages.take(message) {
            None => StatusPtr::from_status(Status::INVALID_PARAM),
            Some(message) => receive_message(ours, buffer, count, message, param),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_msg_recv_nb(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    datatype: Datatype,
    message: *mut c_void,
    callback: TagRecvCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        if handle::worker(worker).is_none() {
            return rarely!(ucp_tag_msg_recv_nb(
                    worker => *mut c_void, buffer => *mut c_void, count => usize,
                    datatype => Datatype, message => *mut c_void, callback => TagRecvCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        }
        let param = plain_receive(datatype, callback);
        ucp_tag_msg_recv_nbx(worker, buffer, count, message, &raw const param)
    }
}

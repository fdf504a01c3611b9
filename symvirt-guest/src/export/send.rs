//! Tagged sends, in all variants.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{Datatype, RequestParam, SendCallback, Tag};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use crate::object::handle;
use crate::real::real;
use crate::transfer::begin::plain;
use crate::transfer::send::{Payload, send, send_short, send_sync};
use crate::transfer::short::Short;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_nbx(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    tag: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments; a worker outlives its endpoints.
    unsafe {
        if let Some(ours) = handle::endpoint(endpoint)
            && let Some(short) = Short::of_send(&*ours.worker, param)
        {
            let payload = Payload { buffer, count };
            return send_short(&short, ours, payload, tag, param);
        }
        send_at_length(endpoint, buffer, count, tag, param)
    }
}

/// # Safety
/// The application's arguments.
#[inline(never)]
unsafe fn send_at_length(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    tag: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return (real().tag_send_nbx)(endpoint, buffer, count, tag, param);
        };
        if let Some(short) = Short::of_send_in_turn(&*ours.worker, param) {
            let payload = Payload { buffer, count };
            return send_short(&short, ours, payload, tag, param);
        }
        let _inside = (*ours.worker).enter();
        send(ours, buffer, count, tag, param)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_nb(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        if handle::endpoint(endpoint).is_none() {
            return rarely!(ucp_tag_send_nb(
                    endpoint => *mut c_void, buffer => *const c_void, count => usize,
                    datatype => Datatype, tag => Tag, callback => SendCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        }
        let param = plain(datatype, raw(callback));
        ucp_tag_send_nbx(endpoint, buffer, count, tag, &raw const param)
    }
}

/// The callback of an `nb` variant, null if there is none.
pub fn raw(callback: SendCallback) -> *const c_void {
    callback.map_or(ptr::null(), |callback| callback as *const c_void)
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_nbr(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    request: *mut c_void,
) -> Status {
    // SAFETY: the application's arguments; `request` has the memory it was told to provide.
    unsafe {
        if handle::endpoint(endpoint).is_none() {
            return rarely!(ucp_tag_send_nbr(
                    endpoint => *mut c_void, buffer => *const c_void, count => usize,
                    datatype => Datatype, tag => Tag, request => *mut c_void,
                ) -> Status, or Status::UNSUPPORTED);
        }
        let param = RequestParam {
            op_attr_mask: op::DATATYPE | op::REQUEST,
            request,
            ..plain(datatype, ptr::null())
        };
        ucp_tag_send_nbx(endpoint, buffer, count, tag, &raw const param).status()
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_sync_nbx(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    tag: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return (real().tag_send_sync_nbx)(endpoint, buffer, count, tag, param);
        };
        let _inside = (*ours.worker).enter();
        send_sync(ours, buffer, count, tag, param)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_sync_nb(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        if handle::endpoint(endpoint).is_none() {
            return rarely!(ucp_tag_send_sync_nb(
                    endpoint => *mut c_void, buffer => *const c_void, count => usize,
                    datatype => Datatype, tag => Tag, callback => SendCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        }
        let param = plain(datatype, raw(callback));
        ucp_tag_send_sync_nbx(endpoint, buffer, count, tag, &raw const param)
    }
}

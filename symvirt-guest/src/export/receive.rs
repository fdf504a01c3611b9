//! Tagged receives, in all variants.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{Datatype, RequestParam, Tag, TagRecvCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use crate::object::handle;
use crate::real::real;
use crate::transfer::begin::{SELDOM, plain};
use crate::transfer::receive::{receive, receive_short};

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_nbx(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    tag: Tag,
    mask: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        if let Some(ours) = handle::worker(worker) {
            let asked = (*param).op_attr_mask;
            if asked & SELDOM == 0
                && let Some(_passage) = ours.enter_alone()
            {
                return receive_short(ours, buffer, count, tag, mask, param, asked);
            }
        }
        receive_at_length(worker, buffer, count, tag, mask, param)
    }
}

/// # Safety
/// The application's arguments.
#[inline(never)]
unsafe fn receive_at_length(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    tag: Tag,
    mask: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().tag_recv_nbx)(worker, buffer, count, tag, mask, param);
        };
        let asked = (*param).op_attr_mask;
        if asked & SELDOM == 0
            && let Some(_inside) = ours.enter_in_turn()
        {
            return receive_short(ours, buffer, count, tag, mask, param, asked);
        }
        let _inside = ours.enter();
        receive(ours, buffer, count, tag, mask, param)
    }
}

/// Parameters of an `nb` receive, which tells every completion by its callback.
pub fn plain_receive(datatype: Datatype, callback: TagRecvCallback) -> RequestParam {
    let callback = callback.map_or(ptr::null(), |callback| callback as *const c_void);
    let mut param = plain(datatype, callback);
    param.op_attr_mask |= op::NO_IMM_CMPL;
    param
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_nb(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    mask: Tag,
    callback: TagRecvCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        if handle::worker(worker).is_none() {
            return rarely!(ucp_tag_recv_nb(
                    worker => *mut c_void, buffer => *mut c_void, count => usize,
                    datatype => Datatype, tag => Tag, mask => Tag, callback => TagRecvCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        }
        let param = plain_receive(datatype, callback);
        ucp_tag_recv_nbx(worker, buffer, count, tag, mask, &raw const param)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_nbr(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    mask: Tag,
    request: *mut c_void,
) -> Status {
    // SAFETY: the application's arguments; `request` has the memory it was told to provide.
    unsafe {
        if handle::worker(worker).is_none() {
            return rarely!(ucp_tag_recv_nbr(
                    worker => *mut c_void, buffer => *mut c_void, count => usize,
                    datatype => Datatype, tag => Tag, mask => Tag, request => *mut c_void,
                ) -> Status, or Status::UNSUPPORTED);
        }
        let mut param = plain_receive(datatype, None);
        param.op_attr_mask |= op::REQUEST;
        param.request = request;
        // The status of a receive that was posted is in the request only, as with UCX.
        match ucp_tag_recv_nbx(worker, buffer, count, tag, mask, &raw const param).status() {
            status if status.is_error() => status,
            _ => Status::OK,
        }
    }
}

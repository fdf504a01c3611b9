//! What every operation begins with: a header that tells the real library what the application
//! asked for, with a callback of ours.
//!
//! The older variants of the C functions (`nb`, `nbr`) come as `nbx` with [`plain`] parameters.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::Status;

use crate::object::request::{COMPLETE, FIRED, Kind, RETURNED, Request, USER_OWNED};
use crate::object::worker::Worker;

/// What the real library sees of the application's mask.
const PASSED: u32 = op::DATATYPE
    | op::MEMORY_TYPE
    | op::FLAGS
    | op::NO_IMM_CMPL
    | op::FAST_CMPL
    | op::FORCE_IMM_CMPL
    | op::MULTI_SEND;

/// Parameters of the older variants: a datatype and at most a callback.
pub fn plain(datatype: u64, callback: *const c_void) -> RequestParam {
    let asked = if callback.is_null() { 0 } else { op::CALLBACK };
    RequestParam {
        op_attr_mask: op::DATATYPE | asked,
        cb: callback,
        datatype,
        ..RequestParam::default()
    }
}

/// What an operation towards a peer that is gone returns.
pub const CUT_OFF: Status = Status::UNREACHABLE;

/// What is asked so seldom that the short ways leave it to the general one.
pub const SELDOM: u32 = op::FLAGS | op::MEMORY_TYPE | op::RECV_INFO;

/// A header, from the pool or in the application's memory, with parameters for the real library.
///
/// # Safety
/// Inside the gate; `param` is the application's, readable by its mask, and `callback` of the type
/// that the real operation calls.
#[inline(always)]
pub unsafe fn begin(
    worker: &Worker,
    param: *const RequestParam,
    callback: *const c_void,
) -> *mut Request {
    // SAFETY: by the caller's promise: each field only if announced.
    unsafe {
        let asked = (*param).op_attr_mask;
        let request = if asked & op::REQUEST == 0 {
            worker.pool.get(worker)
        } else {
            Request::in_users_memory(worker, (*param).request)
        };
        tell(request, param, asked, 0, callback);
        let told = &mut (*request).param;
        if asked & op::FLAGS != 0 {
            told.flags = (*param).flags;
        }
        if asked & op::MEMORY_TYPE != 0 {
            told.memory_type = (*param).memory_type;
        }
        if asked & op::RECV_INFO != 0 {
            told.recv_info = (*param).recv_info;
        }
        request
    }
}

/// Writes the parameters for the real library, all but the seldom ones; `more` is added to the
/// mask.
///
/// # Safety
/// As [`begin`]; `asked` is the mask of `param`.
#[inline(always)]
pub unsafe fn tell(
    request: *mut Request,
    param: *const RequestParam,
    asked: u32,
    more: u32,
    callback: *const c_void,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let told = &mut (*request).param;
        told.op_attr_mask = asked & PASSED | op::CALLBACK | op::USER_DATA | more;
        told.cb = callback;
        if asked & op::DATATYPE != 0 {
            told.datatype = (*param).datatype;
        }
    }
}

/// Notes whom to tell of the completion. The real call may have been made already: nobody looks
/// before it is known to have returned.
///
/// # Safety
/// As [`tell`]; the request is not complete.
#[inline(always)]
pub unsafe fn note(request: *mut Request, param: *const RequestParam, asked: u32, kind: Kind) {
    // SAFETY: by the caller's promise: each field only if announced.
    unsafe {
        let header = &mut *request;
        header.asked = asked;
        header.kind = kind;
        if asked & op::CALLBACK != 0 {
            header.callback = (*param).cb;
        }
        if asked & op::USER_DATA != 0 {
            header.user_data = (*param).user_data;
        }
    }
}

/// Ends an operation that is over before the application could see it under way. Memory of the
/// application's own then tells the status: Open MPI looks there, not at the returned value.
///
/// # Safety
/// The real library has no use for the request any more.
#[inline(always)]
pub unsafe fn discard(worker: &Worker, request: *mut Request, status: Status) {
    // SAFETY: by the caller's promise.
    let header = unsafe { &*request };
    if header.state.load(Ordering::Relaxed) & USER_OWNED == 0 {
        worker.pool.put(request);
    } else {
        header.status.store(status.0, Ordering::Relaxed);
        let over = USER_OWNED | RETURNED | FIRED | COMPLETE;
        header.state.store(over, Ordering::Release);
    }
}

//! Requests. Reading a status passes no gate: it reads our own memory.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use symvirt_ffi::flags::{op, request_attr};
use symvirt_ffi::ucp::{RequestAttr, TagRecvInfo};
use symvirt_ffi::ucs::Status;

use super::rarely;
use crate::object::handle;
use crate::object::request::{self, COMPLETE, FIRED, Kind, RETURNED, Request};
use crate::real::{foreign, real};

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_check_status(request: *mut c_void) -> Status {
    // SAFETY: the application's request.
    unsafe {
        match Request::from_user(request) {
            None => foreign(move |real| (real.request_check_status)(request)),
            Some(ours) => (*ours).visible_status(),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_is_completed(request: *mut c_void) -> c_int {
    // SAFETY: the application's request.
    unsafe { c_int::from(ucp_request_check_status(request) != Status::INPROGRESS) }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_test(request: *mut c_void, info: *mut TagRecvInfo) -> Status {
    // SAFETY: the application's request.
    unsafe {
        let Some(ours) = Request::from_user(request) else {
            return foreign_test(request, info);
        };
        let status = (*ours).visible_status();
        if status != Status::INPROGRESS && !info.is_null() {
            request::copy_info(&raw const (*ours).info, info);
        }
        status
    }
}

/// # Safety
/// As UCX's.
#[cold]
#[inline(never)]
unsafe fn foreign_test(request: *mut c_void, info: *mut TagRecvInfo) -> Status {
    rarely!(ucp_request_test(request => *mut c_void, info => *mut TagRecvInfo)
        -> Status, or Status::UNSUPPORTED)
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_request_test(
    request: *mut c_void,
    info: *mut TagRecvInfo,
) -> Status {
    // SAFETY: the application's request.
    unsafe { ucp_request_test(request, info) }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_query(request: *mut c_void, attr: *mut RequestAttr) -> Status {
    // SAFETY: the application's request and attributes; fields only as announced.
    unsafe {
        let Some(ours) = Request::from_user(request) else {
            return (real().request_query)(request, attr);
        };
        let asked = (*attr).field_mask;
        if asked & request_attr::STATUS != 0 {
            (*attr).status = (*ours).visible_status();
        }
        if asked & request_attr::MEM_TYPE != 0 {
            (*attr).mem_type = match (*ours).asked & op::MEMORY_TYPE {
                0 => 0,
                _ => (*ours).param.memory_type,
            };
        }
        let wants_text = request_attr::INFO_STRING | request_attr::INFO_STRING_SIZE;
        if asked & wants_text == wants_text && (*attr).debug_string_size > 0 {
            (*attr).debug_string.write(0);
        }
        Status::OK
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_free(request: *mut c_void) {
    // SAFETY: the application's request, freed once.
    unsafe {
        match Request::from_user(request) {
            None => foreign(move |real| (real.request_free)(request)),
            Some(ours) => request::free(ours),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_release(request: *mut c_void) {
    // SAFETY: the application's request, freed once.
    unsafe {
        match Request::from_user(request) {
            None => {
                rarely!(ucp_request_release(request => *mut c_void));
            }
            Some(ours) => request::free_early(ours, true),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_cancel(worker: *mut c_void, request: *mut c_void) {
    // SAFETY: the application's handles.
    unsafe {
        let (Some(worker), Some(ours)) = (handle::worker(worker), Request::from_user(request))
        else {
            return (real().request_cancel)(worker, request);
        };
        let _inside = worker.enter();
        if !(*ours).is_left_behind(worker) && !(*ours).real.is_null() {
            let from = match (*ours).kind {
                Kind::Operation | Kind::SyncSend => worker.sending_real(),
                Kind::Receive | Kind::MessageReceive | Kind::Fetch => worker.real(),
            };
            (real().request_cancel)(from, (*ours).real);
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_request_alloc(worker: *mut c_void) -> *mut c_void {
    // SAFETY: the application's handle.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return rarely!(ucp_request_alloc(worker => *mut c_void) -> *mut c_void,
                or ptr::null_mut());
        };
        let _inside = ours.enter();
        let request = ours.pool.get(ours);
        (*request).asked = 0;
        (*request)
            .state
            .store(FIRED | RETURNED | COMPLETE, Ordering::Release);
        Request::user(request)
    }
}

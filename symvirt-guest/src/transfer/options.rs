//! An operation's options, and the request they begin with.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering;

use symvirt_ffi::flags::{dt, op};
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::Status;

use crate::object::request::{COMPLETE, Callback, FIRED, Kind, RETURNED, Request, USER_OWNED};
use crate::object::worker::Worker;

/// Flags of an operation that the real library may see.
pub const PASSED_FLAGS: u32 =
    op::NO_IMM_CMPL | op::FAST_CMPL | op::FORCE_IMM_CMPL | op::MULTI_SEND | op::FLAGS;

/// An operation's options, whichever variant of the C function they came in by.
#[derive(Clone, Copy)]
pub struct Options {
    pub callback: Callback,
    pub user_data: *mut c_void,
    /// `op_attr_mask` of the application.
    pub mask: u32,
    /// `flags` of the application (`ucp_ep_close_nbx` and others).
    pub flags: u32,
    pub datatype: u64,
    pub memory_type: u32,
    /// The application's own request memory.
    pub user_request: *mut c_void,
    /// Where the application wants the description of an immediately completed receive.
    pub recv_info: *mut TagRecvInfo,
}

impl Options {
    /// Options of the older variants: a datatype and at most a callback.
    #[inline(always)]
    pub fn plain(datatype: u64, callback: Callback) -> Options {
        Options {
            callback,
            user_data: ptr::null_mut(),
            mask: op::DATATYPE,
            flags: 0,
            datatype,
            memory_type: 0,
            user_request: ptr::null_mut(),
            recv_info: ptr::null_mut(),
        }
    }

    /// Options of the `nbx` variants.
    ///
    /// # Safety
    /// `param` is readable by its `op_attr_mask`, and its callback is of the kind that
    /// `callback` makes of it.
    #[inline(always)]
    pub unsafe fn read(
        param: *const RequestParam,
        callback: impl FnOnce(*const c_void) -> Callback,
    ) -> Options {
        // SAFETY: `op_attr_mask` is always there; each field only if announced.
        unsafe {
            let mask = (*param).op_attr_mask;
            let mut options = Options::plain(dt::BYTES, Callback::None);
            options.mask = mask;
            if mask & op::CALLBACK != 0 {
                options.callback = callback((*param).cb);
            }
            if mask & op::USER_DATA != 0 {
                options.user_data = (*param).user_data;
            }
            if mask & op::DATATYPE != 0 {
                options.datatype = (*param).datatype;
            }
            if mask & op::FLAGS != 0 {
                options.flags = (*param).flags;
            }
            if mask & op::MEMORY_TYPE != 0 {
                options.memory_type = (*param).memory_type;
            }
            if mask & op::REQUEST != 0 {
                options.user_request = (*param).request;
            }
            if mask & op::RECV_INFO != 0 {
                options.recv_info = (*param).recv_info;
            }
            options
        }
    }

    /// A header for the operation, from the pool or in the application's memory.
    #[inline(always)]
    pub fn request(&self, worker: &Worker, kind: Kind) -> *mut Request {
        let (request, state) = if self.user_request.is_null() {
            (worker.pool.get(worker), 0)
        } else {
            let request = self.user_request.cast::<Request>().wrapping_sub(1);
            // SAFETY: the application provides the memory that `ucp_context_query` asked for.
            unsafe { request.write(Request::blank(worker)) };
            (request, USER_OWNED)
        };
        // SAFETY: a valid header, exclusively ours until the operation starts.
        let header = unsafe { &mut *request };
        header.callback = self.callback;
        header.user_data = self.user_data;
        header.kind = kind;
        header.state.store(state, Ordering::Relaxed);
        request
    }

    /// Parameters for the real library.
    #[inline(always)]
    pub fn real_param(
        &self,
        request: *mut Request,
        callback: *const c_void,
        mask: u32,
    ) -> RequestParam {
        RequestParam {
            op_attr_mask: mask
                | op::CALLBACK
                | op::USER_DATA
                | (self.mask & (op::DATATYPE | op::MEMORY_TYPE)),
            flags: self.flags,
            request: ptr::null_mut(),
            cb: callback,
            datatype: self.datatype,
            user_data: request.cast(),
            reply_buffer: ptr::null_mut(),
            memory_type: self.memory_type,
            recv_info: ptr::null_mut(),
            memh: ptr::null_mut(),
        }
    }
}

/// Ends an operation that completed before anybody could see it pending.
#[inline(always)]
pub fn discard(worker: &Worker, request: *mut Request, status: Status) {
    // SAFETY: exclusively ours: the operation is over.
    let header = unsafe { &*request };
    if header.state.load(Ordering::Relaxed) & USER_OWNED == 0 {
        worker.pool.put(request);
    } else {
        header.status.store(status.0, Ordering::Relaxed);
        header
            .state
            .store(USER_OWNED | RETURNED | FIRED | COMPLETE, Ordering::Release);
    }
}

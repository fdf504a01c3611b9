//! Active messages, in both forms.

use std::ffi::{c_uint, c_void};
use std::ptr;

use symvirt_ffi::flags::{am_handler, am_handler_param, am_send, op};
use symvirt_ffi::ucp::{AmCallback, AmHandlerParam, Datatype, RequestParam, SendCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use super::send::raw;
use crate::object::handle;
use crate::object::handler::{Callback, Handler};
use crate::process::workers;
use crate::real::real;
use crate::transfer::active::{Head, fetch, send};
use crate::transfer::begin::plain;

/// Flags from here on are UCX's own.
const FIRST_PRIVATE_FLAG: u32 = 1 << 15;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_am_send_nbx(
    endpoint: *mut c_void,
    id: c_uint,
    header: *const c_void,
    header_length: usize,
    buffer: *const c_void,
    count: usize,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return (real().am_send_nbx)(endpoint, id, header, header_length, buffer, count, param);
        };
        let head = Head {
            id,
            header,
            length: header_length,
        };
        let _inside = (*ours.worker).enter();
        send(ours, head, buffer, count, param)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_am_send_nb(
    endpoint: *mut c_void,
    id: u16,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    callback: SendCallback,
    flags: c_uint,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        if handle::endpoint(endpoint).is_none() {
            return rarely!(ucp_am_send_nb(
                    endpoint => *mut c_void, id => u16, buffer => *const c_void, count => usize,
                    datatype => Datatype, callback => SendCallback, flags => c_uint,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        }
        // Handlers of the old form cannot take a rendezvous.
        let mut param = plain(datatype, raw(callback));
        param.op_attr_mask |= op::FLAGS;
        param.flags = flags | am_send::EAGER;
        let id = id.into();
        ucp_am_send_nbx(
            endpoint,
            id,
            ptr::null(),
            0,
            buffer,
            count,
            &raw const param,
        )
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_set_am_handler(
    worker: *mut c_void,
    id: u16,
    callback: AmCallback,
    arg: *mut c_void,
    flags: u32,
) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return rarely!(ucp_worker_set_am_handler(
                    worker => *mut c_void, id => u16, callback => AmCallback,
                    arg => *mut c_void, flags => u32,
                ) -> Status, or Status::UNSUPPORTED);
        };
        if flags >= FIRST_PRIVATE_FLAG {
            return Status::INVALID_PARAM;
        }
        let handler = callback.map(|_| Handler {
            callback: Callback::Old(callback),
            arg,
            persistent: flags & am_handler::PERSISTENT_DATA != 0,
        });
        workers::set_handler(ours, id, handler)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_set_am_recv_handler(
    worker: *mut c_void,
    param: *const AmHandlerParam,
) -> Status {
    // SAFETY: the application's arguments; fields only as announced.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().worker_set_am_recv_handler)(worker, param);
        };
        let mask = (*param).field_mask;
        let flags = match mask & am_handler_param::FLAGS {
            0 => 0,
            _ => (*param).flags,
        };
        let needed = am_handler_param::ID | am_handler_param::CB;
        if mask & needed != needed || flags >= FIRST_PRIVATE_FLAG {
            return Status::INVALID_PARAM;
        }
        let Ok(id) = u16::try_from((*param).id) else {
            return Status::INVALID_PARAM;
        };
        let callback = (*param).cb;
        let handler = callback.map(|_| Handler {
            callback: Callback::New(callback),
            arg: match mask & am_handler_param::ARG {
                0 => ptr::null_mut(),
                _ => (*param).arg,
            },
            persistent: flags & am_handler::PERSISTENT_DATA != 0,
        });
        workers::set_handler(ours, id, handler)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_am_recv_data_nbx(
    worker: *mut c_void,
    data: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().am_recv_data_nbx)(worker, data, buffer, count, param);
        };
        let _inside = ours.enter();
        match ours.descriptors.take(data) {
            None => StatusPtr::from_status(Status::INVALID_PARAM),
            Some(descriptor) => fetch(ours, descriptor, buffer, count, param),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_am_data_release(worker: *mut c_void, data: *mut c_void) {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().am_data_release)(worker, data);
        };
        let _inside = ours.enter();
        if let Some(descriptor) = ours.descriptors.take(data) {
            descriptor.release(ours.real());
        }
    }
}

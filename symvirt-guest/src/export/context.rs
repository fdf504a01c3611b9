//! Contexts.

use std::ffi::{c_char, c_uint, c_void};

use symvirt_ffi::flags::context_attr;
use symvirt_ffi::ucp::{ContextAttr, Params};
use symvirt_ffi::ucs::Status;

use super::rarely;
use crate::object::handle;
use crate::process::{contexts, is_movable};
use crate::real::{self, real};

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_init_version(
    major: c_uint,
    minor: c_uint,
    params: *const Params,
    config: *const c_void,
    context: *mut *mut c_void,
) -> Status {
    let Some(table) = real::resolve() else {
        return Status::UNSUPPORTED;
    };
    // SAFETY: the application's arguments, passed on or read by their masks.
    unsafe {
        if !is_movable(params) {
            return (table.init_version)(major, minor, params, config.cast_mut(), context);
        }
        match contexts::create((major, minor), params, config.cast_mut()) {
            Ok(created) => {
                context.write(created.cast_mut().cast());
                Status::OK
            }
            Err(status) => status,
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_cleanup(context: *mut c_void) {
    // SAFETY: the application's handle.
    unsafe {
        match handle::context(context) {
            None => (real().cleanup)(context),
            Some(ours) => contexts::destroy(ours),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_context_query(context: *mut c_void, attr: *mut ContextAttr) -> Status {
    // SAFETY: the application's handle.
    let Some(ours) = (unsafe { handle::context(context) }) else {
        // SAFETY: as above.
        return unsafe { (real().context_query)(context, attr) };
    };
    let _passage = crate::gate::enter();
    // SAFETY: the application's attributes; fields only as announced.
    unsafe {
        let status = (real().context_query)(ours.real(), attr);
        if status == Status::OK && (*attr).field_mask & context_attr::REQUEST_SIZE != 0 {
            (*attr).request_size = ours.requests.reported();
        }
        status
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_context_print_info(context: *mut c_void, stream: *mut libc::FILE) {
    let _passage = crate::gate::enter();
    // SAFETY: the application's handle.
    let context = unsafe { handle::context(context) }.map_or(context, |ours| ours.real());
    rarely!(ucp_context_print_info(context => *mut c_void, stream => *mut libc::FILE));
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_mem_print_info(
    size: *const c_char,
    context: *mut c_void,
    stream: *mut libc::FILE,
) {
    let _passage = crate::gate::enter();
    // SAFETY: the application's handle.
    let context = unsafe { handle::context(context) }.map_or(context, |ours| ours.real());
    rarely!(ucp_mem_print_info(
        size => *const c_char,
        context => *mut c_void,
        stream => *mut libc::FILE,
    ));
}

//! Registered memory and remote keys.

use std::ffi::c_void;

use symvirt_ffi::ucp::MemMapParams;
use symvirt_ffi::ucs::Status;

use super::rarely;
use crate::address::{self, Kind};
use crate::gate;
use crate::object::handle;
use crate::process::memories;
use crate::real::real;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_mem_map(
    context: *mut c_void,
    params: *const MemMapParams,
    memory: *mut *mut c_void,
) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::context(context) else {
            return (real().mem_map)(context, params, memory);
        };
        match memories::map(ours, params) {
            Ok(mapped) => {
                memory.write(mapped.cast_mut().cast());
                Status::OK
            }
            Err(status) => status,
        }
    }
}

/// No memory is refused, where UCX crashes: Open MPI 4.1 has holes in its list of what is attached
/// to a dynamic window if that lies in memory in certain orders, and which it is depends on all that
/// the process has allocated.
///
/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_mem_unmap(context: *mut c_void, memory: *mut c_void) -> Status {
    if memory.is_null() {
        return Status::INVALID_PARAM;
    }
    // SAFETY: the application's handles.
    unsafe {
        match (handle::context(context), handle::memory(memory)) {
            (Some(context), Some(memory)) => memories::unmap(context, memory),
            _ => (real().mem_unmap)(context, memory),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_mem_query(memory: *mut c_void, attr: *mut c_void) -> Status {
    let _passage = gate::enter();
    // SAFETY: the application's handle.
    let memory = unsafe { handle::memory(memory) }.map_or(memory, |ours| ours.real());
    if memory.is_null() {
        return Status::INVALID_ADDR;
    }
    rarely!(ucp_mem_query(memory => *mut c_void, attr => *mut c_void) -> Status,
        or Status::UNSUPPORTED)
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_mem_advise(
    context: *mut c_void,
    memory: *mut c_void,
    params: *mut c_void,
) -> Status {
    let _passage = gate::enter();
    // SAFETY: the application's handles.
    let (context, memory) = unsafe {
        (
            handle::context(context).map_or(context, |ours| ours.real()),
            handle::memory(memory).map_or(memory, |ours| ours.real()),
        )
    };
    if memory.is_null() {
        return Status::INVALID_ADDR;
    }
    rarely!(ucp_mem_advise(
        context => *mut c_void, memory => *mut c_void, params => *mut c_void,
    ) -> Status, or Status::UNSUPPORTED)
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_rkey_pack(
    context: *mut c_void,
    memory: *mut c_void,
    buffer: *mut *mut c_void,
    size: *mut usize,
) -> Status {
    // SAFETY: the application's handles and places.
    unsafe {
        match (handle::context(context), handle::memory(memory)) {
            (Some(context), Some(memory)) => {
                let _passage = gate::enter();
                memories::pack_key(context, memory, buffer, size)
            }
            _ => (real().rkey_pack)(context, memory, buffer, size),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_rkey_buffer_release(buffer: *mut c_void) {
    // SAFETY: what `ucp_rkey_pack` returned; a key of ours was allocated with malloc.
    unsafe {
        if address::is_ours(Kind::Memory, buffer.cast()) {
            libc::free(buffer);
        } else {
            (real().rkey_buffer_release)(buffer);
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_rkey_unpack(
    endpoint: *mut c_void,
    packed: *const c_void,
    key: *mut *mut c_void,
) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            let parsed = address::parse(Kind::Memory, packed.cast());
            let bytes = parsed.map_or(packed, |parsed| parsed.bytes.as_ptr().cast());
            return (real().ep_rkey_unpack)(endpoint, bytes, key);
        };
        match memories::unpack_key(ours, packed) {
            Ok(unpacked) => {
                key.write(unpacked.cast_mut().cast());
                Status::OK
            }
            Err(status) => status,
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_rkey_destroy(key: *mut c_void) {
    // SAFETY: the application's handle.
    unsafe {
        match handle::key(key) {
            None => (real().rkey_destroy)(key),
            Some(ours) => {
                let _inside = (*ours.worker).enter();
                memories::destroy_key(ours);
            }
        }
    }
}

/// A pointer into a peer's memory would not survive a switch, so there is none: UCP's contract
/// lets any key say so.
///
/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_rkey_ptr(
    key: *mut c_void,
    remote: u64,
    pointer: *mut *mut c_void,
) -> Status {
    // SAFETY: the application's handle.
    match unsafe { handle::key(key) } {
        Some(_) => Status::UNREACHABLE,
        None => rarely!(ucp_rkey_ptr(
            key => *mut c_void, remote => u64, pointer => *mut *mut c_void,
        ) -> Status, or Status::UNSUPPORTED),
    }
}

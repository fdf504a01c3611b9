//! Workers.

use std::ffi::{c_uint, c_void};

use symvirt_ffi::flags::worker_attr;
use symvirt_ffi::ucp::{Address, WorkerAddressAttr, WorkerAttr, WorkerParams};
use symvirt_ffi::ucs::Status;
use symvirt_protocol::trailer;

use super::rarely;
use crate::address::{self, Kind};
use crate::object::handle;
use crate::object::worker::Worker;
use crate::process::workers;
use crate::real::{found, real};
use crate::switch::flip;

/// Bytes of an active message's header that fit whatever the transport: it goes into one fragment
/// with UCX's own, of which the smallest are UD's over an MTU of 1024 bytes. UCX's answer holds for
/// the transports of the moment, and it aborts on a header that is too long.
const MAX_AM_HEADER: usize = 512;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_create(
    context: *mut c_void,
    params: *const WorkerParams,
    worker: *mut *mut c_void,
) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::context(context) else {
            return (real().worker_create)(context, params, worker);
        };
        match workers::create(ours, params) {
            Ok(created) => {
                worker.write(created.cast_mut().cast());
                Status::OK
            }
            Err(status) => status,
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_destroy(worker: *mut c_void) {
    // SAFETY: the application's handle.
    unsafe {
        match handle::worker(worker) {
            None => (real().worker_destroy)(worker),
            Some(ours) => workers::destroy(ours),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_progress(worker: *mut c_void) -> c_uint {
    // SAFETY: the application's handle; the real worker in use, inside the gate.
    unsafe {
        // Nothing is waiting: asked inside the gate, as a whole switch may pass before it, and leave
        // what must not be overtaken.
        if let Some(ours) = handle::worker(worker)
            && let Some(_passage) = ours.enter_alone()
            && ours.deferred.is_empty()
        {
            return (found().worker_progress)(ours.real());
        }
        progress_at_length(worker)
    }
}

/// # Safety
/// The application's handle.
#[inline(never)]
unsafe fn progress_at_length(worker: *mut c_void) -> c_uint {
    // SAFETY: by the caller's promise; the real worker in use, inside the gate.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().worker_progress)(worker);
        };
        if let Some(_inside) = ours.enter_in_turn()
            && ours.deferred.is_empty()
        {
            return (found().worker_progress)(ours.real());
        }
        let _inside = ours.enter();
        match ours.deferred.deliver() {
            Some(delivered) => delivered + flip::progress(ours),
            None => 0,
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_query(worker: *mut c_void, attr: *mut WorkerAttr) -> Status {
    // SAFETY: the application's handle.
    let Some(ours) = (unsafe { handle::worker(worker) }) else {
        // SAFETY: as above.
        return unsafe { (real().worker_query)(worker, attr) };
    };
    let _inside = ours.enter();
    // SAFETY: the application's attributes; fields only as announced.
    unsafe {
        let asked = (*attr).field_mask;
        // The address comes from us: keep UCX from allocating one.
        (*attr).field_mask = asked & !worker_attr::ADDRESS;
        let mut status = (real().worker_query)(ours.real(), attr);
        (*attr).field_mask = asked;
        if status == Status::OK && asked & worker_attr::THREAD_MODE != 0 {
            (*attr).thread_mode = ours.thread_mode;
        }
        if status == Status::OK && asked & worker_attr::MAX_AM_HEADER != 0 {
            let longest = (*attr).max_am_header.saturating_sub(trailer::LENGTH);
            (*attr).max_am_header = longest.min(MAX_AM_HEADER);
        }
        if status == Status::OK && asked & worker_attr::ADDRESS != 0 {
            status = workers::address(
                ours,
                &raw mut (*attr).address,
                &raw mut (*attr).address_length,
            );
        }
        status
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_get_address(
    worker: *mut c_void,
    address: *mut Address,
    length: *mut usize,
) -> Status {
    // SAFETY: the application's handle and places.
    unsafe {
        match handle::worker(worker) {
            None => (real().worker_get_address)(worker, address, length),
            Some(ours) => {
                let _inside = ours.enter();
                workers::address(ours, address, length)
            }
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_release_address(worker: *mut c_void, address: Address) {
    // SAFETY: the application's handle; an address of ours was allocated with malloc.
    unsafe {
        match handle::worker(worker) {
            None => (real().worker_release_address)(worker, address),
            Some(_) => libc::free(address),
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_address_query(
    address: Address,
    attr: *mut WorkerAddressAttr,
) -> Status {
    // SAFETY: the application's address, ours or UCX's.
    unsafe {
        let inner = address::parse(Kind::Worker, address.cast())
            .map_or(address, |parsed| parsed.bytes.as_ptr().cast_mut().cast());
        (real().worker_address_query)(inner, attr)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_worker_print_info(worker: *mut c_void, stream: *mut libc::FILE) {
    // SAFETY: the application's handle.
    let ours = unsafe { handle::worker(worker) };
    let _inside = ours.map(Worker::enter);
    let worker = ours.map_or(worker, Worker::real);
    rarely!(ucp_worker_print_info(worker => *mut c_void, stream => *mut libc::FILE));
}

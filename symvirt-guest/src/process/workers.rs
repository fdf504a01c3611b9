//! Making and destroying workers.

use std::ptr;

use symvirt_ffi::ucp::{Address, WorkerParams};
use symvirt_ffi::ucs::Status;

use super::{gang, round};
use crate::address;
use crate::object::context::Context;
use crate::object::handler::Handler;
use crate::object::lock;
use crate::object::worker::{Worker, real_address};
use crate::real::real;

/// Makes a worker in a context of ours.
///
/// # Errors
/// UCX's.
///
/// # Safety
/// `params` is readable by its `field_mask`.
pub unsafe fn create(
    context: &Context,
    params: *const WorkerParams,
) -> Result<*const Worker, Status> {
    let _change = round::change("a UCX worker is being created");
    // SAFETY: by the caller's promise.
    let worker = unsafe { Worker::create(context, params, gang::next_object())? };
    let worker = Box::into_raw(worker).cast_const();
    lock(&context.workers).push(worker);
    Ok(worker)
}

/// Sets or clears the handler of active messages of an id.
///
/// # Errors (as a status)
/// UCX's; [`Status::INVALID_PARAM`] if the context was made without active messages.
pub fn set_handler(worker: &Worker, id: u16, handler: Option<Handler>) -> Status {
    // SAFETY: a context outlives its workers.
    if !unsafe { &*worker.context }.has_active_messages() {
        return Status::INVALID_PARAM;
    }
    let _inside = worker.enter();
    // SAFETY: inside the gate, called by the application.
    let set = unsafe { worker.handlers.set(worker, id, handler) };
    set.err().unwrap_or(Status::OK)
}

/// Destroys a worker and its endpoints. What it sent stays counted: peers may still have to
/// receive it in this epoch.
///
/// # Safety
/// The application's handle, not used any more.
pub unsafe fn destroy(worker: &Worker) {
    let _change = round::change("a UCX worker is being destroyed");
    // SAFETY: a context outlives its workers.
    let context = unsafe { &*worker.context };
    lock(&context.workers).retain(|known| !ptr::eq(*known, worker));
    worker.each_endpoint(gang::retire);
    let pointer = ptr::from_ref(worker).cast_mut();
    // SAFETY: off the list: no switch touches it any more.
    unsafe {
        (real().worker_destroy)(worker.swap_real(ptr::null_mut()));
        drop(Box::from_raw(pointer));
    }
}

/// The worker's address as the application passes it around, in memory for `free`.
///
/// # Safety
/// Inside the gate; the places are writable.
pub unsafe fn address(worker: &Worker, address: *mut Address, length: *mut usize) -> Status {
    let bytes = match real_address(worker.sending_real()) {
        Ok(bytes) => bytes,
        Err(status) => return status,
    };
    let blob = address::pack_address(worker.id, gang::epoch(), &bytes);
    let copy = address::for_application(&blob);
    if copy.is_null() {
        return Status::NO_MEMORY;
    }
    // SAFETY: the places are the application's.
    unsafe {
        address.write(copy.cast());
        length.write(blob.len());
    }
    Status::OK
}

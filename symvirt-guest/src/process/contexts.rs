//! Making and destroying contexts.

use std::ffi::{c_uint, c_void};

use symvirt_ffi::ucp::Params;
use symvirt_ffi::ucs::Status;

use super::{configuration, gang, memories, round};
use crate::object::context::Context;
use crate::object::lock;
use crate::real::real;

/// Makes a context on the gang's current transports.
///
/// # Errors
/// UCX's.
///
/// # Safety
/// `params` is readable by its `field_mask`; `config` is the application's or null.
pub unsafe fn create(
    api: (c_uint, c_uint),
    params: *const Params,
    config: *mut c_void,
) -> Result<*const Context, Status> {
    let _change = round::change("a UCX context is being created");
    let configs = configuration::copy_twice(config)?;
    // SAFETY: by the caller's promise.
    let context = unsafe { Context::create(api, params, configs, &gang::transports())? };
    let context = Box::into_raw(context).cast_const();
    lock(&gang::STATE.contexts).push(gang::ContextPointer(context));
    Ok(context)
}

/// Destroys a context. With the last one the process leaves the gang.
///
/// # Safety
/// The application's handle, not used any more.
pub unsafe fn destroy(context: &Context) {
    let change = round::change("a UCX context is being destroyed");
    let last = {
        let mut contexts = lock(&gang::STATE.contexts);
        contexts.retain(|known| !std::ptr::eq(known.0, context));
        contexts.is_empty()
    };
    let pointer = std::ptr::from_ref(context).cast_mut();
    // SAFETY: off the list: no switch touches it any more, and nobody uses its memory. The real
    // context goes before the recipe that made it.
    unsafe {
        memories::unmap_rest(context);
        (real().cleanup)(context.real());
        drop(Box::from_raw(pointer));
    }
    drop(change);
    if last {
        gang::leave();
    }
}

//! Generic datatypes: recorded, so that a drained message can be delivered.

use std::ffi::c_void;

use symvirt_ffi::ucp::{Datatype, GenericDtOps};
use symvirt_ffi::ucs::Status;

use crate::object::datatype;
use crate::real;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_dt_create_generic(
    ops: *const GenericDtOps,
    context: *mut c_void,
    created: *mut Datatype,
) -> Status {
    let Some(real) = real::resolve() else {
        return Status::UNSUPPORTED;
    };
    // SAFETY: the application's arguments; the result was written on success.
    unsafe {
        let status = (real.dt_create_generic)(ops, context, created);
        if status == Status::OK {
            datatype::record(*created, *ops, context);
        }
        status
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_dt_destroy(destroyed: Datatype) {
    datatype::forget(destroyed);
    if let Some(real) = real::resolve() {
        // SAFETY: the application's datatype.
        unsafe { (real.dt_destroy)(destroyed) };
    }
}

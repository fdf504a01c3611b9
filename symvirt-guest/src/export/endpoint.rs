//! Endpoints.

use std::ffi::{c_uint, c_void};
use std::ptr;

use symvirt_ffi::flags::{close, dt, op};
use symvirt_ffi::ucp::{EpParams, RequestParam};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use crate::object::handle;
use crate::process::endpoints;
use crate::real::real;
use crate::transfer::begin::plain;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_create(
    worker: *mut c_void,
    params: *const EpParams,
    endpoint: *mut *mut c_void,
) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return endpoints::create_unmoved(worker, params, endpoint);
        };
        match endpoints::create(ours, params) {
            Ok(created) => {
                endpoint.write(created.cast_mut().cast());
                Status::OK
            }
            Err(status) => status,
        }
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_close_nbx(
    endpoint: *mut c_void,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return (real().ep_close_nbx)(endpoint, param);
        };
        let _inside = (*ours.worker).enter();
        endpoints::close(ours, param)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_close_nb(endpoint: *mut c_void, mode: c_uint) -> StatusPtr {
    // SAFETY: the application's handle.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return rarely!(ucp_ep_close_nb(endpoint => *mut c_void, mode => c_uint) -> StatusPtr,
                or StatusPtr::from_status(Status::UNSUPPORTED));
        };
        let _inside = (*ours.worker).enter();
        endpoints::close(ours, &close_param(mode))
    }
}

fn close_param(mode: c_uint) -> RequestParam {
    let mut param = plain(dt::BYTES, ptr::null());
    if mode == close::MODE_FORCE {
        param.op_attr_mask |= op::FLAGS;
        param.flags = close::FLAG_FORCE;
    }
    param
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_disconnect_nb(endpoint: *mut c_void) -> StatusPtr {
    // SAFETY: the application's handle.
    unsafe { ucp_ep_close_nb(endpoint, close::MODE_FLUSH) }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_ep_destroy(endpoint: *mut c_void) {
    // SAFETY: the application's handle.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            rarely!(ucp_ep_destroy(endpoint => *mut c_void));
            return;
        };
        let worker = ours.worker;
        let started = {
            let _inside = (*worker).enter();
            endpoints::close(ours, &close_param(close::MODE_FLUSH))
        };
        super::flush::wait(&*worker, started);
    }
}

macro_rules! with_real_endpoint {
    ($(fn $name:ident($first:ident: *mut c_void, $($arg:ident: $ty:ty),*) $(-> $ret:ty, or $default:expr)?;)*) => {$(
        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($first: *mut c_void, $($arg: $ty),*) $(-> $ret)? {
            // SAFETY: the application's handle.
            let ours = unsafe { handle::endpoint($first) };
            // SAFETY: a worker outlives its endpoints.
            let _inside = ours.map(|ours| unsafe { &*ours.worker }.enter());
            let $first = ours.map_or($first, |ours| {
                if ours.is_asleep() {
                    endpoints::wake(ours);
                }
                ours.real()
            });
            if $first.is_null() {
                // Its peer is gone.
                return $($default)?;
            }
            rarely!($name($first => *mut c_void, $($arg => $ty),*) $(-> $ret, or $default)?)
        }
    )*};
}

with_real_endpoint! {
    fn ucp_ep_query(endpoint: *mut c_void, attr: *mut c_void) -> Status, or Status::UNSUPPORTED;
    fn ucp_ep_print_info(endpoint: *mut c_void, stream: *mut libc::FILE);
    fn ucp_ep_evaluate_perf(
        endpoint: *mut c_void, param: *const c_void, attr: *mut c_void
    ) -> Status, or Status::UNSUPPORTED;
}

//! An endpoint: the way to one peer worker, and the recipe to make it again.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use symvirt_ffi::flags::ep_param;
use symvirt_ffi::ucp::{EpParams, ErrHandler};
use symvirt_ffi::ucs::{SockAddr, Status};
use symvirt_protocol::ids::WorkerId;

use super::handle::Mark;
use super::worker::Worker;
use crate::real::real;

/// Our `ucp_ep_h`.
#[repr(C)]
pub struct Endpoint {
    mark: Mark,
    real: AtomicPtr<c_void>,
    pub worker: *const Worker,
    /// Messages sent to the peer in this epoch: each call that returned no error.
    pub sent: AtomicU64,
    /// Unique within the process.
    pub id: u64,
    /// `None` when the peer is not of our gang; then the process vetoes switches.
    pub peer: Option<WorkerId>,
    recipe: Recipe,
}

/// What the application asked of the endpoint, without the address.
#[derive(Clone, Copy)]
pub struct Recipe {
    field_mask: u64,
    err_mode: u32,
    err_handler: ErrHandler,
    user_data: *mut c_void,
    flags: u32,
}

impl Recipe {
    /// Copies what the application announced.
    ///
    /// # Safety
    /// `params` is readable by its `field_mask`.
    pub unsafe fn copy(params: *const EpParams) -> Recipe {
        const KEPT: u64 = ep_param::ERR_HANDLING_MODE
            | ep_param::ERR_HANDLER
            | ep_param::USER_DATA
            | ep_param::FLAGS;
        let no_handler = ErrHandler {
            cb: None,
            arg: ptr::null_mut(),
        };
        // SAFETY: each field only if announced.
        unsafe {
            let mask = (*params).field_mask & KEPT;
            let has = |field| mask & field != 0;
            Recipe {
                field_mask: mask,
                err_mode: if has(ep_param::ERR_HANDLING_MODE) {
                    (*params).err_mode
                } else {
                    0
                },
                err_handler: if has(ep_param::ERR_HANDLER) {
                    (*params).err_handler
                } else {
                    no_handler
                },
                user_data: if has(ep_param::USER_DATA) {
                    (*params).user_data
                } else {
                    ptr::null_mut()
                },
                flags: if has(ep_param::FLAGS) {
                    (*params).flags
                } else {
                    0
                },
            }
        }
    }

    /// Parameters for an endpoint by worker address, with the address still to be filled in.
    pub fn params(&self) -> EpParams {
        let no_address = SockAddr {
            addr: ptr::null(),
            addrlen: 0,
        };
        EpParams {
            field_mask: self.field_mask | ep_param::REMOTE_ADDRESS,
            address: ptr::null_mut(),
            err_mode: self.err_mode,
            err_handler: self.err_handler,
            user_data: self.user_data,
            flags: self.flags,
            sockaddr: no_address,
            conn_request: ptr::null_mut(),
            name: ptr::null(),
            local_sockaddr: no_address,
        }
    }
}

impl Endpoint {
    /// Makes an endpoint without a real side yet.
    pub fn new(worker: *const Worker, id: u64, peer: Option<WorkerId>, recipe: Recipe) -> Endpoint {
        Endpoint {
            mark: Mark::Endpoint,
            real: AtomicPtr::new(ptr::null_mut()),
            worker,
            sent: AtomicU64::new(0),
            id,
            peer,
            recipe,
        }
    }

    /// The real endpoint in use.
    #[inline(always)]
    pub fn real(&self) -> *mut c_void {
        self.real.load(Ordering::Relaxed)
    }

    /// Changes the real side; at creation or under the closed gate.
    pub fn set_real(&self, new: *mut c_void) {
        self.real.store(new, Ordering::Relaxed);
    }

    /// Counts one message.
    #[inline(always)]
    pub fn count_sent(&self, shared: bool) {
        super::worker::bump(&self.sent, shared);
    }

    /// Makes a real endpoint of `real_worker` to the peer's UCX address.
    ///
    /// # Errors
    /// UCX's.
    pub fn connect(&self, real_worker: *mut c_void, address: &[u8]) -> Result<*mut c_void, Status> {
        let mut params = self.recipe.params();
        params.address = address.as_ptr().cast_mut().cast();
        if self.recipe.err_handler.cb.is_some() {
            let arg = ptr::from_ref(self).cast_mut().cast();
            params.err_handler = ErrHandler {
                cb: Some(on_error),
                arg,
            };
        }
        let mut endpoint = ptr::null_mut();
        // SAFETY: a live worker, our parameters, and a place for the result.
        match unsafe { (real().ep_create)(real_worker, &raw const params, &raw mut endpoint) } {
            Status::OK => Ok(endpoint),
            status => Err(status),
        }
    }
}

/// The peer is lost. Errors of a real endpoint that is being released are nobody's concern; those
/// met on a helper are logged, and come again when the application uses the endpoint.
unsafe extern "C" fn on_error(arg: *mut c_void, real_endpoint: *mut c_void, status: Status) {
    // SAFETY: `arg` was given by `connect`; endpoints stay in memory as long as their worker.
    let endpoint = unsafe { &*arg.cast::<Endpoint>() };
    if endpoint.real() != real_endpoint {
        return;
    }
    if crate::tls::is_helper() {
        crate::log::warning!(
            "endpoint to {:?} failed during a switch: {status}",
            endpoint.peer
        );
        return;
    }
    if let Some(callback) = endpoint.recipe.err_handler.cb {
        // SAFETY: the application's own handler and argument.
        unsafe { callback(endpoint.recipe.err_handler.arg, arg, status) };
    }
}

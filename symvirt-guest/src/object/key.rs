//! A remote key: the right to access a peer's registered memory over one endpoint.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::MemoryId;

use super::handle::Mark;
use super::near::Near;
use super::route::Route;
use super::worker::Worker;
use crate::real::real;

/// Our `ucp_rkey_h`.
#[repr(C)]
pub struct Key {
    mark: Mark,
    real: AtomicPtr<c_void>,
    pub worker: *const Worker,
    /// Unique within the process, unlike its address.
    pub id: u64,
    /// What the endpoint it was unpacked for leads over, and what it opens; `None` where no switch
    /// can follow.
    pub recipe: Option<(Route, MemoryId)>,
    /// The memory, where this process reaches it by itself.
    pub near: Option<Near>,
}

impl Key {
    /// Makes a key of a real one.
    pub fn new(
        worker: *const Worker,
        recipe: Option<(Route, MemoryId)>,
        near: Option<Near>,
        real: *mut c_void,
    ) -> Key {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Key {
            mark: Mark::Key,
            real: AtomicPtr::new(real),
            worker,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            recipe,
            near,
        }
    }

    /// The real key in use.
    #[inline(always)]
    pub fn real(&self) -> *mut c_void {
        self.real.load(Ordering::Relaxed)
    }

    /// Changes the real side; under the closed gate. Returns the old one.
    pub fn swap_real(&self, new: *mut c_void) -> *mut c_void {
        self.real.swap(new, Ordering::Relaxed)
    }
}

/// A real key of a real endpoint.
///
/// # Errors
/// UCX's.
///
/// # Safety
/// A live endpoint; `packed` is whole, as UCX packed it.
pub unsafe fn unpack(
    real_endpoint: *mut c_void,
    packed: *const c_void,
) -> Result<*mut c_void, Status> {
    let mut key = ptr::null_mut();
    // SAFETY: by the caller's promise, and a place for the result.
    let status = unsafe { (real().ep_rkey_unpack)(real_endpoint, packed, &raw mut key) };
    match status {
        Status::OK => Ok(key),
        status => Err(status),
    }
}

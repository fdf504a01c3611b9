//! Telling our handles from UCX's.

use std::ffi::c_void;

use super::context::Context;
use super::endpoint::Endpoint;
use super::key::Key;
use super::memory::Memory;
use super::worker::Worker;

/// First word of each of our objects. UCX's objects start with pointers or small numbers; these
/// are not canonical addresses on any supported machine.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Context = 0xc0a7_5e77_5359_4d01,
    Worker = 0xc0a7_5e77_5359_4d02,
    Endpoint = 0xc0a7_5e77_5359_4d03,
    Message = 0xc0a7_5e77_5359_4d04,
    Request = 0xc0a7_5e77_5359_4d05,
    Memory = 0xc0a7_5e77_5359_4d06,
    Key = 0xc0a7_5e77_5359_4d07,
}

/// Upper 56 bits that all marks share: the test of a guarded export.
pub const MARK_PREFIX: u64 = Mark::Context as u64 >> 8;

/// Whether the object behind a handle bears this mark.
///
/// # Safety
/// `handle` is a live handle of UCX or of ours: both are readable for eight bytes.
#[inline(always)]
unsafe fn bears(handle: *mut c_void, mark: Mark) -> bool {
    // SAFETY: by the caller's promise.
    unsafe { handle.cast::<u64>().read() == mark as u64 }
}

macro_rules! from_handle {
    ($function:ident, $object:ident) => {
        /// Our object behind a handle, `None` if the handle is UCX's own.
        ///
        /// # Safety
        /// `handle` is live: UCP's contract with its callers.
        #[inline(always)]
        pub unsafe fn $function<'a>(handle: *mut c_void) -> Option<&'a $object> {
            // SAFETY: a live handle; ours stays in place until the application destroys it.
            unsafe { bears(handle, Mark::$object).then(|| &*handle.cast::<$object>()) }
        }
    };
}

from_handle!(context, Context);
from_handle!(worker, Worker);
from_handle!(endpoint, Endpoint);
from_handle!(memory, Memory);
from_handle!(key, Key);

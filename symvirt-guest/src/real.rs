//! Entries of the real libucp.
//!
//! They come from `dlsym(RTLD_NEXT)`, or, where MPI loaded its components privately, from the
//! libucp that is already in the process. A call by name would bind to our own export.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use symvirt_ffi::functions::Functions;

use crate::object::lock;

/// The table, in place: a call through it costs one load.
struct Table(UnsafeCell<MaybeUninit<Functions>>);

// SAFETY: written once, before `FOUND`; read after.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new(MaybeUninit::uninit()));
static FOUND: AtomicBool = AtomicBool::new(false);

/// The table.
#[inline(always)]
pub fn real() -> &'static Functions {
    if !FOUND.load(Ordering::Acquire) {
        resolve_or_die();
    }
    // SAFETY: it has been found.
    unsafe { found() }
}

/// The table, without a look whether it is there.
///
/// # Safety
/// An object of ours exists: none is made before the real library is found.
#[inline(always)]
pub unsafe fn found() -> &'static Functions {
    // SAFETY: by the caller's promise it was written, and it never is again.
    unsafe { (*TABLE.0.get()).assume_init_ref() }
}

/// Calls the real library with a handle that is not ours: out of line, so that the way of our own
/// handles saves no registers for it.
#[cold]
#[inline(never)]
pub fn foreign<R>(call: impl FnOnce(&Functions) -> R) -> R {
    call(real())
}

#[cold]
fn resolve_or_die() {
    if resolve().is_none() {
        crate::log::error!("no libucp.so.0 in this process: UCX was called without being there");
        std::process::abort();
    }
}

/// Finds the real library; `None` if it is not in the process, or lacks a function.
pub fn resolve() -> Option<&'static Functions> {
    static WRITING: Mutex<()> = Mutex::new(());
    if !FOUND.load(Ordering::Acquire) {
        // SAFETY: `lookup` returns libucp's function of the name.
        let table = match unsafe { Functions::resolve(lookup) } {
            Ok(table) => table,
            Err(missing) => {
                crate::log::debug!("the real {missing} was not found");
                return None;
            }
        };
        crate::export::trampoline::fill(lookup);
        let _held = lock(&WRITING);
        if !FOUND.load(Ordering::Acquire) {
            // SAFETY: under the lock, and nobody reads before `FOUND`.
            unsafe { (*TABLE.0.get()).write(table) };
            FOUND.store(true, Ordering::Release);
        }
    }
    // SAFETY: found.
    Some(unsafe { found() })
}

/// Address of the real function of this name, or null.
pub fn lookup(name: &str) -> *mut c_void {
    let Ok(name) = CString::new(name) else {
        return std::ptr::null_mut();
    };
    // SAFETY: a C string and a pseudo-handle.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if !next.is_null() {
        return next;
    }
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
    // SAFETY: a C string; the library is not loaded by this, only found.
    let library = unsafe { libc::dlopen(c"libucp.so.0".as_ptr(), flags) };
    if library.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: a handle that `dlopen` returned; it is kept open, as is the library itself.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

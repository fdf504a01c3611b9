//! Entries of the real libucp.
//!
//! They come from `dlsym(RTLD_NEXT)`, or, where MPI loaded its components privately, from the
//! libucp that is already in the process. A call by name would bind to our own export.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use symvirt_ffi::functions::Functions;

static REAL: AtomicPtr<Functions> = AtomicPtr::new(std::ptr::null_mut());

/// The table; it exists once any object of ours exists.
#[inline(always)]
pub fn real() -> &'static Functions {
    let table = REAL.load(Ordering::Relaxed);
    if table.is_null() {
        resolve_or_die()
    } else {
        // SAFETY: set once to a leaked table.
        unsafe { &*table }
    }
}

#[cold]
fn resolve_or_die() -> &'static Functions {
    match resolve() {
        Some(table) => table,
        None => {
            crate::log::error!(
                "no libucp.so.0 in this process: UCX was called without being there"
            );
            std::process::abort();
        }
    }
}

/// Finds the real library; `None` if it is not in the process, or lacks a function.
pub fn resolve() -> Option<&'static Functions> {
    let known = REAL.load(Ordering::Acquire);
    if !known.is_null() {
        // SAFETY: set once to a leaked table.
        return Some(unsafe { &*known });
    }
    // SAFETY: `lookup` returns libucp's function of the name.
    match unsafe { Functions::resolve(lookup) } {
        Ok(table) => {
            crate::export::trampoline::fill(lookup);
            let table: &'static Functions = Box::leak(Box::new(table));
            REAL.store(std::ptr::from_ref(table).cast_mut(), Ordering::Release);
            Some(table)
        }
        Err(missing) => {
            crate::log::debug!("the real {missing} was not found");
            None
        }
    }
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

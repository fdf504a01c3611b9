//! Library and configuration.

use std::ffi::{CStr, c_char, c_uint, c_void};

use symvirt_ffi::ucs::Status;

use super::rarely;
use crate::process::configuration;
use crate::real;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_get_version(
    major: *mut c_uint,
    minor: *mut c_uint,
    release: *mut c_uint,
) {
    if let Some(real) = real::resolve() {
        // SAFETY: the application's places for the numbers.
        unsafe { (real.get_version)(major, minor, release) };
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_get_version_string() -> *const c_char {
    rarely!(ucp_get_version_string() -> *const c_char, or c"unknown".as_ptr())
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_lib_query(attr: *mut c_void) -> Status {
    rarely!(ucp_lib_query(attr => *mut c_void) -> Status, or Status::UNSUPPORTED)
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_config_read(
    prefix: *const c_char,
    file: *const c_char,
    config: *mut *mut c_void,
) -> Status {
    let Some(real) = real::resolve() else {
        return Status::UNSUPPORTED;
    };
    // SAFETY: the application's arguments.
    let status = unsafe { (real.config_read)(prefix, file, config) };
    if status == Status::OK {
        // SAFETY: C strings or null; the result was written.
        unsafe { configuration::record(*config, text(prefix), text(file)) };
    }
    status
}

/// # Safety
/// `text` is a C string or null.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: by the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_config_modify(
    config: *mut c_void,
    name: *const c_char,
    value: *const c_char,
) -> Status {
    let Some(real) = real::resolve() else {
        return Status::UNSUPPORTED;
    };
    // SAFETY: the application's arguments.
    let status = unsafe { (real.config_modify)(config, name, value) };
    if status == Status::OK {
        // SAFETY: UCX accepted both as C strings.
        unsafe {
            configuration::record_change(config, CStr::from_ptr(name), CStr::from_ptr(value))
        };
    }
    status
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_config_print(
    config: *const c_void,
    stream: *mut libc::FILE,
    title: *const c_char,
    flags: c_uint,
) {
    rarely!(ucp_config_print(
        config => *const c_void,
        stream => *mut libc::FILE,
        title => *const c_char,
        flags => c_uint,
    ));
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_config_release(config: *mut c_void) {
    configuration::forget(config);
    if let Some(real) = real::resolve() {
        // SAFETY: the application's configuration.
        unsafe { (real.config_release)(config) };
    }
}

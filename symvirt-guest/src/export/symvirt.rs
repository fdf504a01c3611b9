//! The functions of `symvirt.h`: see there for what they promise.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use symvirt_ffi::symvirt::{Participant, State, code};

use crate::process::{holds, participants, state};
use crate::tls;

/// # Safety
/// The places are null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symvirt_version(
    major: *mut c_uint,
    minor: *mut c_uint,
    patch: *mut c_uint,
) -> c_int {
    let parts = [
        (major, env!("CARGO_PKG_VERSION_MAJOR")),
        (minor, env!("CARGO_PKG_VERSION_MINOR")),
        (patch, env!("CARGO_PKG_VERSION_PATCH")),
    ];
    for (place, part) in parts {
        if !place.is_null() {
            // SAFETY: by the caller's promise; Cargo makes it a number.
            unsafe { place.write(part.parse().unwrap_or(0)) };
        }
    }
    code::OK
}

/// # Safety
/// `place` is null, or leads to a struct of the size that it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symvirt_get_state(place: *mut State) -> c_int {
    if tls::is_helper() {
        return code::IN_CALLBACK;
    }
    // SAFETY: by the caller's promise.
    if place.is_null() || unsafe { (*place).size } != size_of::<State>() {
        return code::INVALID;
    }
    // SAFETY: as above.
    state::tell(unsafe { &mut *place });
    code::OK
}

/// # Safety
/// `region` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symvirt_hold(region: *const c_char) -> c_int {
    if tls::is_helper() {
        return code::IN_CALLBACK;
    }
    if region.is_null() {
        return code::INVALID;
    }
    // SAFETY: by the caller's promise.
    holds::hold(&unsafe { CStr::from_ptr(region) }.to_string_lossy());
    code::OK
}

#[unsafe(no_mangle)]
pub extern "C" fn symvirt_allow() -> c_int {
    if tls::is_helper() {
        return code::IN_CALLBACK;
    }
    if holds::allow() {
        code::OK
    } else {
        code::NOT_HELD
    }
}

/// # Safety
/// `given` is null, or leads to a struct of the size that it says, whose callbacks may be called
/// with its context until it is removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symvirt_add(given: *const Participant) -> c_int {
    if tls::is_helper() {
        return code::IN_CALLBACK;
    }
    // SAFETY: by the caller's promise, here and below.
    unsafe {
        if given.is_null() || (*given).size != size_of::<Participant>() || (*given).name.is_null() {
            return code::INVALID;
        }
        let name = CStr::from_ptr((*given).name).to_string_lossy().into_owned();
        participants::add(name, *given);
    }
    code::OK
}

/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symvirt_remove(name: *const c_char, context: *mut c_void) -> c_int {
    if tls::is_helper() {
        return code::IN_CALLBACK;
    }
    if name.is_null() {
        return code::INVALID;
    }
    // SAFETY: by the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    if participants::remove(&name, context) {
        code::OK
    } else {
        code::NOT_HELD
    }
}

//! Puts and gets, in all variants.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::dt;
use symvirt_ffi::ucp::{RequestParam, SendCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::flush::wait;
use super::rarely;
use super::send::raw;
use crate::object::handle;
use crate::real::real;
use crate::transfer::begin::plain;
use crate::transfer::one_sided::{self, Target};
use crate::transfer::short::Short;

/// Where an operation goes, if endpoint and key are ours.
///
/// # Safety
/// Live handles of UCX or of ours.
pub unsafe fn target<'a>(
    endpoint: *mut c_void,
    remote: u64,
    key: *mut c_void,
) -> Option<Target<'a>> {
    // SAFETY: by the caller's promise.
    let (endpoint, key) = unsafe { (handle::endpoint(endpoint)?, handle::key(key)?) };
    Some(Target {
        endpoint,
        remote,
        key,
    })
}

/// A put needs no answer before what follows it.
unsafe fn at_once(_: Target<'_>, _: usize) {}

/// What a get reads is read before what follows it is written, if the peer can answer at once: the
/// first answer over an endpoint that a switch made without a hello is waited for.
///
/// # Safety
/// The target of a get of the application.
#[inline(always)]
unsafe fn in_order(target: Target<'_>, count: usize) {
    if target.endpoint.is_unanswered() && count > 0 {
        // SAFETY: by the caller's promise.
        unsafe { await_first_answer(target) };
    }
}

/// # Safety
/// As [`in_order`].
#[cold]
unsafe fn await_first_answer(target: Target<'_>) {
    let near = target.key.near.as_ref();
    if near.is_some_and(|near| near.at(target.remote, 1).is_some()) {
        // Nobody has to answer.
        return;
    }
    let mut byte = 0_u8;
    let param = plain(dt::BYTES, ptr::null());
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*target.endpoint.worker };
    let started = {
        let _inside = worker.enter();
        // SAFETY: the first byte that the application gets; the place for it lives until the wait
        // is over.
        unsafe { one_sided::get(target, (&raw mut byte).cast(), 1, &raw const param, None) }
    };
    // SAFETY: just started.
    let status = unsafe { wait(worker, started) };
    if status != Status::OK {
        crate::log::debug!("the first answer over an endpoint: {status}");
    }
    target.endpoint.set_answered();
}

macro_rules! transfers {
    ($nbx:ident, $nb:ident, $nbi:ident, $blocking:ident, $buffer:ty, $order:path,
     $start:path, $start_nbi:path, $real:ident, $real_nbi:ident) => {
        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $nbx(
            endpoint: *mut c_void,
            buffer: $buffer,
            count: usize,
            remote: u64,
            key: *mut c_void,
            param: *const RequestParam,
        ) -> StatusPtr {
            // SAFETY: the application's arguments.
            unsafe {
                let Some(target) = target(endpoint, remote, key) else {
                    return (real().$real)(endpoint, buffer, count, remote, key, param);
                };
                $order(target, count);
                let worker = &*target.endpoint.worker;
                if let Some(short) = Short::of_other(worker, param) {
                    return $start(target, buffer, count, param, Some(&short));
                }
                let _inside = worker.enter();
                $start(target, buffer, count, param, None)
            }
        }

        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $nb(
            endpoint: *mut c_void,
            buffer: $buffer,
            length: usize,
            remote: u64,
            key: *mut c_void,
            callback: SendCallback,
        ) -> StatusPtr {
            // SAFETY: the application's arguments.
            unsafe {
                if target(endpoint, remote, key).is_none() {
                    return rarely!($nb(
                        endpoint => *mut c_void, buffer => $buffer, length => usize,
                        remote => u64, key => *mut c_void, callback => SendCallback,
                    ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
                }
                let param = plain(dt::BYTES, raw(callback));
                $nbx(endpoint, buffer, length, remote, key, &raw const param)
            }
        }

        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $nbi(
            endpoint: *mut c_void,
            buffer: $buffer,
            length: usize,
            remote: u64,
            key: *mut c_void,
        ) -> Status {
            // SAFETY: the application's arguments.
            unsafe {
                let Some(target) = target(endpoint, remote, key) else {
                    return (real().$real_nbi)(endpoint, buffer, length, remote, key);
                };
                $order(target, length);
                let _inside = (*target.endpoint.worker).enter();
                $start_nbi(target, buffer, length)
            }
        }

        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $blocking(
            endpoint: *mut c_void,
            buffer: $buffer,
            length: usize,
            remote: u64,
            key: *mut c_void,
        ) -> Status {
            // SAFETY: the application's arguments; a worker outlives its endpoints.
            unsafe {
                let Some(target) = target(endpoint, remote, key) else {
                    return rarely!($blocking(
                        endpoint => *mut c_void, buffer => $buffer, length => usize,
                        remote => u64, key => *mut c_void,
                    ) -> Status, or Status::UNSUPPORTED);
                };
                let param = plain(dt::BYTES, ptr::null());
                let started = $nbx(endpoint, buffer, length, remote, key, &raw const param);
                wait(&*target.endpoint.worker, started)
            }
        }
    };
}

transfers!(
    ucp_put_nbx,
    ucp_put_nb,
    ucp_put_nbi,
    ucp_put,
    *const c_void,
    at_once,
    one_sided::put,
    one_sided::put_implicit,
    put_nbx,
    put_nbi
);
transfers!(
    ucp_get_nbx,
    ucp_get_nb,
    ucp_get_nbi,
    ucp_get,
    *mut c_void,
    in_order,
    one_sided::get,
    one_sided::get_implicit,
    get_nbx,
    get_nbi
);

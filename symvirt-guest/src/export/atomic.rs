//! Atomics on a peer's memory, in all variants.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::{atomic, atomic_fetch, dt, op};
use symvirt_ffi::ucp::{AtomicFetchOp, AtomicOp, AtomicPostOp, RequestParam, SendCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::flush::wait;
use super::rarely;
use super::rma::target;
use super::send::raw;
use crate::real::real;
use crate::transfer::atomic::{operate, operate_implicit};
use crate::transfer::begin::plain;
use crate::transfer::one_sided::Target;
use crate::transfer::short::Short;

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_atomic_op_nbx(
    endpoint: *mut c_void,
    opcode: AtomicOp,
    operand: *const c_void,
    count: usize,
    remote: u64,
    key: *mut c_void,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments; the reply buffer only if announced.
    unsafe {
        let Some(target) = target(endpoint, remote, key) else {
            return (real().atomic_op_nbx)(endpoint, opcode, operand, count, remote, key, param);
        };
        let reply = if (*param).op_attr_mask & op::REPLY_BUFFER != 0 {
            (*param).reply_buffer
        } else {
            ptr::null_mut()
        };
        let worker = &*target.endpoint.worker;
        if let Some(short) = Short::of_other(worker, param) {
            let short = Some(&short);
            return operate(target, opcode, operand, count, reply, param, short);
        }
        let _inside = worker.enter();
        operate(target, opcode, operand, count, reply, param, None)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_atomic_post(
    endpoint: *mut c_void,
    opcode: AtomicPostOp,
    operand: u64,
    size: usize,
    remote: u64,
    key: *mut c_void,
) -> Status {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(target) = target(endpoint, remote, key) else {
            return (real().atomic_post)(endpoint, opcode, operand, size, remote, key);
        };
        let _inside = (*target.endpoint.worker).enter();
        operate_implicit(target, opcode, operand, size)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_atomic_fetch_nb(
    endpoint: *mut c_void,
    opcode: AtomicFetchOp,
    operand: u64,
    result: *mut c_void,
    size: usize,
    remote: u64,
    key: *mut c_void,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(target) = target(endpoint, remote, key) else {
            return rarely!(ucp_atomic_fetch_nb(
                endpoint => *mut c_void, opcode => AtomicFetchOp, operand => u64,
                result => *mut c_void, size => usize, remote => u64, key => *mut c_void,
                callback => SendCallback,
            ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        };
        let opcode = match opcode {
            atomic_fetch::FADD => atomic::ADD,
            atomic_fetch::SWAP => atomic::SWAP,
            atomic_fetch::CSWAP => atomic::CSWAP,
            atomic_fetch::FAND => atomic::AND,
            atomic_fetch::FOR => atomic::OR,
            atomic_fetch::FXOR => atomic::XOR,
            _ => return StatusPtr::from_status(Status::INVALID_PARAM),
        };
        fetch(target, opcode, operand, result, size, callback)
    }
}

/// Starts a fetching operation on one element of `size` bytes. UCX reads the operand at once.
#[inline(always)]
unsafe fn fetch(
    target: Target<'_>,
    opcode: AtomicOp,
    operand: u64,
    result: *mut c_void,
    size: usize,
    callback: SendCallback,
) -> StatusPtr {
    let param = plain((size as u64) << dt::SHIFT, raw(callback));
    let operand = (&raw const operand).cast();
    // SAFETY: the application's arguments; a worker outlives its endpoints.
    unsafe {
        let worker = &*target.endpoint.worker;
        if let Some(short) = Short::of_other(worker, &raw const param) {
            return operate(
                target,
                opcode,
                operand,
                1,
                result,
                &raw const param,
                Some(&short),
            );
        }
        let _inside = worker.enter();
        operate(target, opcode, operand, 1, result, &raw const param, None)
    }
}

macro_rules! blocking {
    ($($name:ident: $word:ty, $opcode:expr;)*) => {$(
        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            endpoint: *mut c_void,
            operand: $word,
            remote: u64,
            key: *mut c_void,
            result: *mut $word,
        ) -> Status {
            // SAFETY: the application's arguments; a worker outlives its endpoints.
            unsafe {
                let Some(target) = target(endpoint, remote, key) else {
                    return rarely!($name(
                        endpoint => *mut c_void, operand => $word, remote => u64,
                        key => *mut c_void, result => *mut $word,
                    ) -> Status, or Status::UNSUPPORTED);
                };
                let (size, place) = (size_of::<$word>(), result.cast());
                let started =
                    fetch(target, $opcode, u64::from(operand), place, size, None);
                wait(&*target.endpoint.worker, started)
            }
        }
    )*};
}

blocking! {
    ucp_atomic_fadd32: u32, atomic::ADD;
    ucp_atomic_fadd64: u64, atomic::ADD;
    ucp_atomic_swap32: u32, atomic::SWAP;
    ucp_atomic_swap64: u64, atomic::SWAP;
}

macro_rules! blocking_compare {
    ($($name:ident: $word:ty;)*) => {$(
        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            endpoint: *mut c_void,
            compare: $word,
            swap: $word,
            remote: u64,
            key: *mut c_void,
            result: *mut $word,
        ) -> Status {
            // SAFETY: the application's arguments; a worker outlives its endpoints.
            unsafe {
                let Some(target) = target(endpoint, remote, key) else {
                    return rarely!($name(
                        endpoint => *mut c_void, compare => $word, swap => $word, remote => u64,
                        key => *mut c_void, result => *mut $word,
                    ) -> Status, or Status::UNSUPPORTED);
                };
                // The place of the result holds the new value until then.
                result.write(swap);
                let (size, place) = (size_of::<$word>(), result.cast());
                let compare = u64::from(compare);
                let started =
                    fetch(target, atomic::CSWAP, compare, place, size, None);
                wait(&*target.endpoint.worker, started)
            }
        }
    )*};
}

blocking_compare! {
    ucp_atomic_cswap32: u32;
    ucp_atomic_cswap64: u64;
}

macro_rules! blocking_add {
    ($($name:ident: $word:ty;)*) => {$(
        /// # Safety
        /// As UCX's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            endpoint: *mut c_void,
            add: $word,
            remote: u64,
            key: *mut c_void,
        ) -> Status {
            // SAFETY: the application's arguments; `UCP_ATOMIC_POST_OP_ADD` is 0 as well.
            unsafe {
                if target(endpoint, remote, key).is_some() {
                    let size = size_of::<$word>();
                    return ucp_atomic_post(endpoint, atomic::ADD, u64::from(add), size, remote, key);
                }
                rarely!($name(
                    endpoint => *mut c_void, add => $word, remote => u64, key => *mut c_void,
                ) -> Status, or Status::UNSUPPORTED)
            }
        }
    )*};
}

blocking_add! {
    ucp_atomic_add32: u32;
    ucp_atomic_add64: u64;
}

//! Atomics on a peer's memory: by UCX, or by this processor, where the process reaches that memory
//! by itself and what UCX would do is the work of processors, too. Both then meet in the same word
//! as they would without us: UCX's software atomics, which the owner carries out, are its
//! processor's instructions (`ucp/rma/amo_sw.c`). A device's are not.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use symvirt_ffi::flags::{atomic, dt, op};
use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::begin::CUT_OFF;
use super::one_sided::{NOT_COPIED, Target};
use super::send::operation;
use super::short::Short;
use crate::real::found;

/// An atomic operation on `count` elements; `reply` is where the old value goes, or null.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_atomic_op_nbx`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the C function's")]
pub unsafe fn operate(
    on: Target<'_>,
    opcode: u32,
    operand: *const c_void,
    count: usize,
    reply: *mut c_void,
    param: *const RequestParam,
    short: Option<&Short>,
) -> StatusPtr {
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*on.endpoint.worker };
    worker.traffic.note_atomic();
    // SAFETY: by the caller's promise; the datatype only if announced.
    unsafe {
        if count == 1
            && (*param).op_attr_mask & (NOT_COPIED | op::DATATYPE) == op::DATATYPE
            && (*param).datatype & dt::CLASS_MASK == dt::CONTIG
            && here(
                on,
                opcode,
                operand,
                ((*param).datatype >> dt::SHIFT) as usize,
                reply,
            )
            .is_some()
        {
            return StatusPtr::OK;
        }
    }
    let Some((endpoint, key)) = on.begin() else {
        return StatusPtr::from_status(CUT_OFF);
    };
    // SAFETY: by the caller's promise.
    unsafe {
        operation(short, worker, param, |param| {
            if !reply.is_null() {
                (*param).op_attr_mask |= op::REPLY_BUFFER;
                (*param).reply_buffer = reply;
            }
            (found().atomic_op_nbx)(endpoint, opcode, operand, count, on.remote, key, param)
        })
    }
}

/// By `ucp_atomic_post_op_t`.
const POSTED: [u32; 4] = [atomic::ADD, atomic::AND, atomic::OR, atomic::XOR];

/// An atomic operation without a result or request: a flush completes it.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_atomic_post`.
pub unsafe fn operate_implicit(on: Target<'_>, opcode: u32, operand: u64, size: usize) -> Status {
    // SAFETY: a worker outlives its endpoints.
    unsafe { &*on.endpoint.worker }.traffic.note_atomic();
    if let Some(&operation) = POSTED.get(opcode as usize) {
        let word = (&raw const operand).cast();
        // SAFETY: by the caller's promise; the low half of the operand is where its first bytes are.
        if unsafe { here(on, operation, word, size, ptr::null_mut()) }.is_some() {
            return Status::OK;
        }
    }
    let Some((endpoint, key)) = on.begin() else {
        return CUT_OFF;
    };
    // SAFETY: by the caller's promise.
    unsafe { (found().atomic_post)(endpoint, opcode, operand, size, on.remote, key) }
}

/// Carries out an operation on one element of `size` bytes; `None`, and nothing was done, if that
/// is UCX's.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_atomic_op_nbx`.
#[inline(always)]
unsafe fn here(
    on: Target<'_>,
    opcode: u32,
    operand: *const c_void,
    size: usize,
    reply: *mut c_void,
) -> Option<()> {
    let place = on.key.near.as_ref()?.atomically_at(on.remote, size)?;
    // SAFETY: the place has `size` bytes, and lives as long as the key; by the caller's promise.
    unsafe {
        match size {
            4 => word32(place, opcode, operand, reply),
            8 => word64(place, opcode, operand, reply),
            _ => None,
        }
    }
}

macro_rules! words {
    ($($name:ident: $atomic:ty, $word:ty;)*) => {$(
        /// # Safety
        /// `place` has a word, and so have `operand` and, if it is not null, `reply`.
        #[inline(always)]
        unsafe fn $name(
            place: *mut c_void,
            opcode: u32,
            operand: *const c_void,
            reply: *mut c_void,
        ) -> Option<()> {
            let (place, reply) = (place.cast::<$word>(), reply.cast::<$word>());
            if !place.is_aligned() || (reply.is_null() && matches!(opcode, atomic::SWAP | atomic::CSWAP)) {
                return None;
            }
            // SAFETY: by the caller's promise, and aligned; who else knows the word changes it
            // atomically, as MPI and OpenSHMEM ask of an application.
            unsafe {
                let word = <$atomic>::from_ptr(place);
                let operand = operand.cast::<$word>().read_unaligned();
                let before = match opcode {
                    atomic::ADD => word.fetch_add(operand, Ordering::SeqCst),
                    atomic::AND => word.fetch_and(operand, Ordering::SeqCst),
                    atomic::OR => word.fetch_or(operand, Ordering::SeqCst),
                    atomic::XOR => word.fetch_xor(operand, Ordering::SeqCst),
                    atomic::SWAP => word.swap(operand, Ordering::SeqCst),
                    atomic::CSWAP => {
                        // The place of the reply holds the new value until then.
                        let new = reply.read_unaligned();
                        let (yes, no) = (Ordering::SeqCst, Ordering::SeqCst);
                        match word.compare_exchange(operand, new, yes, no) {
                            Ok(before) | Err(before) => before,
                        }
                    }
                    _ => return None,
                };
                if !reply.is_null() {
                    reply.write_unaligned(before);
                }
            }
            Some(())
        }
    )*};
}

words! {
    word32: AtomicU32, u32;
    word64: AtomicU64, u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word and the reply after an operation on 12, with 7 in the reply.
    fn on_twelve(opcode: u32, operand: u64) -> (u64, u64) {
        let (mut word, mut reply) = (12_u64, 7_u64);
        let place = (&raw mut word).cast();
        // SAFETY: words of ours.
        let done = unsafe {
            let operand = (&raw const operand).cast();
            word64(place, opcode, operand, (&raw mut reply).cast())
        };
        assert_eq!(done, Some(()));
        (word, reply)
    }

    #[test]
    fn operations_change_the_word_and_reply_with_the_old_one() {
        assert_eq!(on_twelve(atomic::ADD, 10), (22, 12));
        assert_eq!(on_twelve(atomic::AND, 10), (8, 12));
        assert_eq!(on_twelve(atomic::OR, 10), (14, 12));
        assert_eq!(on_twelve(atomic::XOR, 10), (6, 12));
        assert_eq!(on_twelve(atomic::SWAP, 10), (10, 12));
        assert_eq!(on_twelve(atomic::CSWAP, 10), (12, 12));
        assert_eq!(on_twelve(atomic::CSWAP, 12), (7, 12));
    }

    #[test]
    fn what_ucx_has_to_judge_is_left_alone() {
        let mut words = [1_u32; 3];
        let operand = (&raw const words[2]).cast();
        let place: *mut c_void = words.as_mut_ptr().cast();
        let nowhere = ptr::null_mut();
        // SAFETY: words of ours.
        unsafe {
            assert_eq!(word32(place, atomic::SWAP, operand, nowhere), None);
            assert_eq!(word32(place, 6, operand, nowhere), None);
            let askew = place.byte_add(2);
            assert_eq!(word32(askew, atomic::ADD, operand, nowhere), None);
            assert_eq!(word32(place, atomic::ADD, operand, nowhere), Some(()));
        }
        assert_eq!(words, [2, 1, 1]);
    }
}

//! Datatypes: what is needed to deliver a drained message into the application's buffer.
//!
//! Generic datatypes are recorded when they are created, because the real handle hides its
//! functions.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

use symvirt_ffi::flags::dt;
use symvirt_ffi::ucp::{Datatype, DtIov, GenericDtOps};
use symvirt_ffi::ucs::Status;

use super::lock;

#[derive(Clone, Copy)]
struct Generic {
    ops: GenericDtOps,
    context: *mut c_void,
}

// SAFETY: function pointers, and a context that UCX itself hands to whichever thread progresses.
unsafe impl Send for Generic {}

static GENERIC: Mutex<Option<HashMap<Datatype, Generic>>> = Mutex::new(None);

/// Remembers a generic datatype.
pub fn record(datatype: Datatype, ops: GenericDtOps, context: *mut c_void) {
    lock(&GENERIC)
        .get_or_insert_default()
        .insert(datatype, Generic { ops, context });
}

/// Forgets a datatype that the application destroys.
pub fn forget(datatype: Datatype) {
    if let Some(known) = lock(&GENERIC).as_mut() {
        known.remove(&datatype);
    }
}

/// The length of a message that only its datatype's own functions know: more than any spool holds.
const UNKNOWN: u64 = 1 << 40;

/// Bytes of `count` elements of `datatype` at `buffer`; a very large number if that is not known.
///
/// # Safety
/// `buffer`, `count` and `datatype` are those of a send of the application.
pub unsafe fn length(buffer: *const c_void, count: usize, datatype: Datatype) -> u64 {
    match datatype & dt::CLASS_MASK {
        dt::CONTIG => (datatype >> dt::SHIFT).saturating_mul(count as u64),
        dt::IOV => (0..count).fold(0, |all, index| {
            // SAFETY: an array of `count` entries.
            let entry = unsafe { &*buffer.cast::<DtIov>().add(index) };
            all + entry.length as u64
        }),
        _ => UNKNOWN,
    }
}

/// Copies `data` into `count` elements of `datatype` at `buffer`, as a receive would.
/// [`Status::MESSAGE_TRUNCATED`] if they do not fit.
///
/// # Safety
/// `buffer`, `count` and `datatype` are those of a receive that the application has posted.
pub unsafe fn unpack(data: &[u8], buffer: *mut c_void, count: usize, datatype: Datatype) -> Status {
    match datatype & dt::CLASS_MASK {
        dt::CONTIG => {
            let room = ((datatype >> dt::SHIFT) as usize).saturating_mul(count);
            // SAFETY: the application's buffer has `room` bytes.
            unsafe { copy_bounded(data, buffer, room) }
        }
        // SAFETY: `buffer` is an array of `count` entries, each naming memory of its length.
        dt::IOV => unsafe { scatter(data, buffer.cast(), count) },
        dt::GENERIC => {
            let generic = lock(&GENERIC)
                .as_ref()
                .and_then(|all| all.get(&datatype).copied());
            match generic {
                // SAFETY: a datatype of the application's, not destroyed while in use.
                Some(generic) => unsafe { unpack_generic(data, buffer, count, generic) },
                None => Status::INVALID_PARAM,
            }
        }
        _ => Status::INVALID_PARAM,
    }
}

unsafe fn copy_bounded(data: &[u8], to: *mut c_void, room: usize) -> Status {
    if data.len() > room {
        return Status::MESSAGE_TRUNCATED;
    }
    // SAFETY: `to` has `room` bytes by the caller's promise; zero bytes may come with any pointer.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to.cast::<u8>(), data.len()) };
    Status::OK
}

unsafe fn scatter(mut data: &[u8], entries: *const DtIov, count: usize) -> Status {
    for index in 0..count {
        // SAFETY: within the caller's array.
        let entry = unsafe { *entries.add(index) };
        let (now, later) = data.split_at(data.len().min(entry.length));
        // SAFETY: the entry names `length` bytes.
        unsafe { copy_bounded(now, entry.buffer, entry.length) };
        data = later;
    }
    if data.is_empty() {
        Status::OK
    } else {
        Status::MESSAGE_TRUNCATED
    }
}

unsafe fn unpack_generic(
    data: &[u8],
    buffer: *mut c_void,
    count: usize,
    generic: Generic,
) -> Status {
    let GenericDtOps {
        start_unpack,
        packed_size,
        unpack,
        finish,
        ..
    } = generic.ops;
    let (Some(start), Some(size), Some(unpack), Some(finish)) =
        (start_unpack, packed_size, unpack, finish)
    else {
        return Status::INVALID_PARAM;
    };
    // SAFETY: UCP's contract for generic datatypes: start, size, unpack, finish.
    unsafe {
        let state = start(generic.context, buffer, count);
        let status = if data.len() > size(state) {
            Status::MESSAGE_TRUNCATED
        } else {
            unpack(state, 0, data.as_ptr().cast(), data.len())
        };
        finish(state);
        status
    }
}

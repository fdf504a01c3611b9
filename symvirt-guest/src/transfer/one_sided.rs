//! Puts and gets of a peer's memory: by UCX, or, where this process reaches it by itself, by
//! copying.
//! Nobody counts what arrives: a switch flushes instead.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::{dt, op};
use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::begin::{CUT_OFF, SELDOM};
use super::send::operation;
use super::short::Short;
use crate::object::endpoint::Endpoint;
use crate::object::key::Key;
use crate::process::endpoints::wake;
use crate::process::memories::wake_key;
use crate::real::found;

/// Where an operation goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub endpoint: &'a Endpoint,
    /// Address in the peer's memory.
    pub remote: u64,
    pub key: &'a Key,
}

impl Target<'_> {
    /// The real endpoint and key in use, for an operation that begins; `None` once the peer is
    /// gone, or the memory.
    #[inline(always)]
    pub(super) fn begin(&self) -> Option<(*mut c_void, *mut c_void)> {
        self.endpoint.note_access();
        let (endpoint, key) = (self.endpoint.real(), self.key.real());
        if endpoint.is_null() || key.is_null() {
            return self.wake();
        }
        Some((endpoint, key))
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) -> Option<(*mut c_void, *mut c_void)> {
        let leads = !self.endpoint.is_asleep() || wake(self.endpoint);
        let opens = leads && (!self.key.real().is_null() || wake_key(self.key));
        opens.then(|| (self.endpoint.real(), self.key.real()))
    }
}

/// What a copy of ours cannot do: tell of its completion, or read anything but the bytes in order.
pub(super) const NOT_COPIED: u32 = SELDOM | op::REQUEST | op::NO_IMM_CMPL;

/// Where the elements of a transfer are in memory that this process reaches by itself, and how
/// many bytes; `None` if UCX has to transfer them.
///
/// # Safety
/// `param` is readable by its mask.
#[inline(always)]
unsafe fn near(
    target: Target<'_>,
    count: usize,
    param: *const RequestParam,
) -> Option<(*mut c_void, usize)> {
    let near = target.key.near.as_ref()?;
    // SAFETY: by the caller's promise: the datatype only if announced.
    let (asked, datatype) = unsafe {
        match (*param).op_attr_mask {
            asked if asked & op::DATATYPE == 0 => (asked, dt::BYTES),
            asked => (asked, (*param).datatype),
        }
    };
    if asked & NOT_COPIED != 0 || datatype & dt::CLASS_MASK != dt::CONTIG {
        return None;
    }
    let length = count.checked_mul((datatype >> dt::SHIFT) as usize)?;
    Some((near.at(target.remote, length)?, length))
}

/// Puts `count` elements.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_put_nbx`.
#[inline(always)]
pub unsafe fn put(
    to: Target<'_>,
    buffer: *const c_void,
    count: usize,
    param: *const RequestParam,
    short: Option<&Short>,
) -> StatusPtr {
    // SAFETY: by the caller's promise; a worker outlives its endpoints.
    unsafe {
        if let Some((place, length)) = near(to, count, param) {
            ptr::copy(buffer.cast::<u8>(), place.cast(), length);
            return StatusPtr::OK;
        }
        let Some((endpoint, key)) = to.begin() else {
            return StatusPtr::from_status(CUT_OFF);
        };
        operation(short, &*to.endpoint.worker, param, |param| {
            (found().put_nbx)(endpoint, buffer, count, to.remote, key, param)
        })
    }
}

/// Gets `count` elements.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_get_nbx`.
#[inline(always)]
pub unsafe fn get(
    from: Target<'_>,
    buffer: *mut c_void,
    count: usize,
    param: *const RequestParam,
    short: Option<&Short>,
) -> StatusPtr {
    // SAFETY: by the caller's promise; a worker outlives its endpoints.
    unsafe {
        if let Some((place, length)) = near(from, count, param) {
            ptr::copy(place.cast::<u8>(), buffer.cast(), length);
            return StatusPtr::OK;
        }
        let Some((endpoint, key)) = from.begin() else {
            return StatusPtr::from_status(CUT_OFF);
        };
        operation(short, &*from.endpoint.worker, param, |param| {
            (found().get_nbx)(endpoint, buffer, count, from.remote, key, param)
        })
    }
}

/// Puts without a request: a flush completes it.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_put_nbi`.
pub unsafe fn put_implicit(to: Target<'_>, buffer: *const c_void, length: usize) -> Status {
    let near = to.key.near.as_ref();
    if let Some(place) = near.and_then(|near| near.at(to.remote, length)) {
        // SAFETY: by the caller's promise; the places may overlap in this process's own memory.
        unsafe { ptr::copy(buffer.cast::<u8>(), place.cast(), length) };
        return Status::OK;
    }
    let Some((endpoint, key)) = to.begin() else {
        return CUT_OFF;
    };
    // SAFETY: by the caller's promise.
    unsafe { (found().put_nbi)(endpoint, buffer, length, to.remote, key) }
}

/// Gets without a request: a flush completes it.
///
/// # Safety
/// Inside the gate; the arguments are those of `ucp_get_nbi`.
pub unsafe fn get_implicit(from: Target<'_>, buffer: *mut c_void, length: usize) -> Status {
    let near = from.key.near.as_ref();
    if let Some(place) = near.and_then(|near| near.at(from.remote, length)) {
        // SAFETY: as in `put_implicit`.
        unsafe { ptr::copy(place.cast::<u8>(), buffer.cast(), length) };
        return Status::OK;
    }
    let Some((endpoint, key)) = from.begin() else {
        return CUT_OFF;
    };
    // SAFETY: by the caller's promise.
    unsafe { (found().get_nbi)(endpoint, buffer, length, from.remote, key) }
}

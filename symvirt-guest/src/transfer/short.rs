//! The short way of an operation that is usually over when the real call returns: until it is
//! known that it is not, nothing is written down but what the real library is told, in a request
//! that is only lent.

use std::ffi::c_void;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::StatusPtr;

use super::begin::{SELDOM, tell};
use super::send::{Payload, on_done, started};
use crate::gate::Passage;
use crate::object::request::{Kind, Request};
use crate::object::worker::{Inside, Worker};

/// A thread that is inside the gate, in no other call of UCX, and alone with the worker, and that
/// asks for nothing seldom; dropping it leaves.
pub struct Short<Way = Passage> {
    /// The pool's, not taken.
    spare: *mut Request,
    /// The mask of the application's parameters.
    asked: u32,
    _way: Way,
}

impl Short {
    /// Goes the short way of a send if it is open, or else does nothing: the caller must go on to
    /// [`Short::of_send_in_turn`] or [`Worker::enter`].
    ///
    /// # Safety
    /// The application's parameters.
    #[inline(always)]
    pub unsafe fn of_send(worker: &Worker, param: *const RequestParam) -> Option<Short> {
        // SAFETY: by the caller's promise.
        unsafe { Short::find(worker, param, SELDOM, || worker.enter_alone()) }
    }

    /// As [`Short::of_send`], of another operation. In memory of the application's own it would
    /// have to leave its status, also if it is over at once: that is the general way's.
    ///
    /// # Safety
    /// As [`Short::of_send`].
    #[inline(always)]
    pub unsafe fn of_other(worker: &Worker, param: *const RequestParam) -> Option<Short> {
        // SAFETY: by the caller's promise.
        unsafe { Short::find(worker, param, SELDOM | op::REQUEST, || worker.enter_alone()) }
    }
}

impl<'a> Short<Inside<'a>> {
    /// As [`Short::of_send`], of a worker that threads share.
    ///
    /// # Safety
    /// As [`Short::of_send`].
    #[inline(always)]
    pub unsafe fn of_send_in_turn(worker: &'a Worker, param: *const RequestParam) -> Option<Self> {
        // SAFETY: by the caller's promise.
        unsafe { Short::find(worker, param, SELDOM, || worker.enter_in_turn()) }
    }
}

impl<Way> Short<Way> {
    #[inline(always)]
    unsafe fn find(
        worker: &Worker,
        param: *const RequestParam,
        seldom: u32,
        enter: impl FnOnce() -> Option<Way>,
    ) -> Option<Short<Way>> {
        // SAFETY: by the caller's promise.
        let asked = unsafe { (*param).op_attr_mask };
        if asked & seldom != 0 {
            return None;
        }
        let way = enter()?;
        Some(Short {
            spare: worker.pool.spare(),
            asked,
            _way: way,
        })
    }

    /// Starts an operation that sends `payload`; `call` calls the real library with the parameters
    /// it is given.
    ///
    /// # Safety
    /// `worker` and `param` are those that it was found for; `call` passes its argument on to a real
    /// operation on that worker.
    #[inline(always)]
    pub unsafe fn start(
        &self,
        worker: &Worker,
        param: *const RequestParam,
        payload: Payload,
        call: impl FnOnce(*mut RequestParam) -> StatusPtr,
    ) -> StatusPtr {
        // SAFETY: by the caller's promise.
        unsafe {
            let request = match self.asked & op::REQUEST {
                0 => self.spare,
                _ => Request::in_users_memory(worker, (*param).request),
            };
            tell(request, param, self.asked, 0, on_done as *const c_void);
            let result = call(&raw mut (*request).param);
            if result.request().is_some() {
                return under_way(worker, result, payload, param);
            }
            result
        }
    }
}

/// # Safety
/// As [`Short::start`], just after the call has returned a request.
#[cold]
unsafe fn under_way(
    worker: &Worker,
    result: StatusPtr,
    payload: Payload,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: by the caller's promise.
    unsafe {
        let request = if (*param).op_attr_mask & op::REQUEST == 0 {
            let spare = worker.pool.spare();
            worker.pool.take_spare(worker);
            spare
        } else {
            Request::behind((*param).request)
        };
        started(worker, request, result.0, param, payload, Kind::Operation)
    }
}

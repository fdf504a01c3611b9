//! Messages on their way from the old side into our memory.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::side::plain_param;
use crate::object::descriptor::Held;
use crate::object::message::{Body, Message};
use crate::object::worker::Worker;
use crate::real::real;
use crate::spool::Block;

/// One message. Boxed: UCX holds its address.
pub struct Pull {
    data: Block,
    owner: Owner,
    status: Status,
    /// The real request while under way. Freeing it earlier would silence its callback.
    request: *mut c_void,
}

/// Who waits for a message that is being pulled.
pub enum Owner {
    /// Whoever receives it by tag: its position among the drained ones.
    Drained(usize),
    /// The application has probed it.
    Probed(*mut Message),
    /// A handler of active messages has been told of it, or will be.
    Told(Held),
}

impl Pull {
    /// Receives a message that was removed from the worker's list.
    ///
    /// # Safety
    /// Under the closed gate; `message` is the worker's, of as many bytes as `data`, and received
    /// nowhere else.
    pub unsafe fn tagged(
        worker: &Worker,
        message: *mut c_void,
        data: Block,
        owner: Owner,
    ) -> Box<Pull> {
        let (from, length) = (worker.real(), data.len());
        Pull::start(data, owner, |buffer, param| {
            // SAFETY: buffer and parameters live until the completion; by the caller's promise.
            unsafe { (real().tag_msg_recv_nbx)(from, buffer, length, message, param) }
        })
    }

    /// Fetches what came by rendezvous for a handler of active messages.
    ///
    /// # Safety
    /// As [`Pull::tagged`]; a descriptor that our callback has kept.
    pub unsafe fn active(
        worker: &Worker,
        descriptor: *mut c_void,
        data: Block,
        held: Held,
    ) -> Box<Pull> {
        let (from, length) = (worker.real(), data.len());
        Pull::start(data, Owner::Told(held), |buffer, param| {
            // SAFETY: as above.
            unsafe { (real().am_recv_data_nbx)(from, descriptor, buffer, length, param) }
        })
    }

    /// Lets `start` receive into memory of ours.
    fn start(
        data: Block,
        owner: Owner,
        start: impl FnOnce(*mut c_void, *const RequestParam) -> StatusPtr,
    ) -> Box<Pull> {
        let mut pull = Box::new(Pull {
            data,
            owner,
            status: Status::INPROGRESS,
            request: ptr::null_mut(),
        });
        let param = RequestParam {
            cb: on_pulled as *const c_void,
            user_data: (&raw mut *pull).cast(),
            ..plain_param(op::CALLBACK | op::USER_DATA | op::NO_IMM_CMPL)
        };
        let result = start(pull.data.as_mut_ptr().cast(), &raw const param);
        match result.request() {
            None => pull.status = result.status(),
            Some(request) if pull.status == Status::INPROGRESS => pull.request = request,
            // SAFETY: complete, and freed once.
            Some(request) => unsafe { (real().request_free)(request) },
        }
        pull
    }

    /// Whether the message is here, or lost.
    pub fn is_done(&self) -> bool {
        self.status != Status::INPROGRESS
    }

    /// Puts the message where the application will look for it; returns its length.
    pub fn finish(self, worker: &Worker) -> u64 {
        let Pull {
            data,
            owner,
            status,
            ..
        } = self;
        let length = data.len() as u64;
        if status != Status::OK {
            crate::log::error!("a message of {length} bytes was lost in the drain: {status}");
        }
        match owner {
            // SAFETY: still handed out: the gate has been closed since.
            Owner::Probed(message) => unsafe { (*message).body = Body::Drained(data) },
            Owner::Told(held) => worker.descriptors.fill(held, data),
            Owner::Drained(position) => worker.drained.fill(position, data),
        }
        length
    }
}

/// Of both kinds of message: the description or the length is not looked at.
unsafe extern "C" fn on_pulled(
    _: *mut c_void,
    status: Status,
    _info: *const c_void,
    user_data: *mut c_void,
) {
    // SAFETY: `user_data` is the pull, boxed until it completes.
    let pull = unsafe { &mut *user_data.cast::<Pull>() };
    pull.status = status;
    if !pull.request.is_null() {
        // SAFETY: complete, and freed once: an inline completion comes before the request is kept.
        unsafe { (real().request_free)(pull.request) };
    }
}

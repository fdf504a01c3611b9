//! Hellos: a small message on each new endpoint, which the library consumes at the other end.
//! When all have come, every endpoint is wired up in both directions, and a new worker has seen
//! nothing else.
//!
//! Where memory can be read by peers, a hello is a synchronous send: its acknowledgement shows that
//! the peer can answer, too. UCX emulates a get by a message with the bytes, read when it can be
//! sent. An answer that had to wait for its connection would contain what a later put has written;
//! osc/ucx relies on their order (`MPI_Get_accumulate` with `MPI_REPLACE`).

use std::collections::HashMap;
use std::ffi::c_void;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::Tag;
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::WorkerId;

use super::side::{SideError, WorkerSide, plain_param};
use crate::real::real;

/// Tag of hellos. A new worker sees nothing else until all hellos are consumed.
const HELLO: Tag = 0x5359_4d56_4845_4c4f;
/// Bytes of a hello: enough to be a message, little enough to be eager everywhere.
const HELLO_BYTES: usize = 8;

/// The hellos of one new worker.
#[derive(Default)]
pub struct Hellos {
    sending: Vec<*mut c_void>,
    awaited: Vec<*mut c_void>,
    /// Where they are received; never read.
    inbox: Box<[u8; HELLO_BYTES]>,
}

impl Hellos {
    /// Frees what is complete; whether everything is.
    ///
    /// # Errors
    /// A hello that failed.
    pub fn are_done(&mut self) -> Result<bool, SideError> {
        let mut failed = Status::OK;
        let mut is_pending = |&request: &*mut c_void| {
            // SAFETY: a live request of the real library.
            let status = unsafe { (real().request_check_status)(request) };
            if status == Status::INPROGRESS {
                return true;
            }
            if status != Status::OK {
                failed = status;
            }
            // SAFETY: complete, and freed once.
            unsafe { (real().request_free)(request) };
            false
        };
        self.sending.retain(&mut is_pending);
        self.awaited.retain(&mut is_pending);
        match failed {
            Status::OK => Ok(self.sending.is_empty() && self.awaited.is_empty()),
            status => Err(SideError::Hello(status)),
        }
    }

    /// Takes back the receives that are still posted on their worker; hellos that nobody takes
    /// any more go with it.
    pub fn give_up(&mut self, real_worker: *mut c_void) {
        for request in self.sending.drain(..) {
            // SAFETY: a live request; one that is not complete is freed when it is.
            unsafe { (real().request_free)(request) };
        }
        for request in self.awaited.drain(..) {
            // SAFETY: posted on this worker and not complete; freed once.
            unsafe {
                (real().request_cancel)(real_worker, request);
                (real().request_free)(request);
            }
        }
    }
}

impl WorkerSide {
    /// Makes a twin of each route to a peer that is there, and sends a hello on it. One that fell idle since the addresses
    /// were published gets one too: the peer counts on its hello.
    ///
    /// # Errors
    /// The first failure, with the peer.
    pub fn greet(
        &mut self,
        addresses: &HashMap<WorkerId, &[u8]>,
        is_gone: impl Fn(WorkerId) -> bool,
    ) -> Result<(), SideError> {
        // SAFETY: workers are not destroyed during a round.
        let worker = unsafe { &*self.worker };
        // SAFETY: a context outlives its workers.
        let is_read = unsafe { &*worker.context }.is_one_sided();
        let send = if is_read {
            real().tag_send_sync_nbx
        } else {
            real().tag_send_nbx
        };
        for &route in &self.greeting {
            let peer = route.peer;
            let Some(address) = addresses.get(&peer) else {
                if is_gone(peer) {
                    // Nobody is kept from switching because an endpoint to it was left open.
                    continue;
                }
                return Err(SideError::UnknownPeer(peer));
            };
            let twin = route
                .connect(worker, self.real, address)
                .map_err(|status| SideError::Endpoint { peer, status })?;
            self.twins.insert(route, twin);
            static GREETING: [u8; HELLO_BYTES] = HELLO.to_le_bytes();
            let param = plain_param(0);
            // SAFETY: a live endpoint, and bytes that live for ever.
            let sent = unsafe {
                send(
                    twin,
                    GREETING.as_ptr().cast(),
                    HELLO_BYTES,
                    HELLO,
                    &raw const param,
                )
            };
            match sent.request() {
                Some(request) => self.hellos.sending.push(request),
                None if sent.status() == Status::OK => {}
                None => return Err(SideError::Hello(sent.status())),
            }
        }
        Ok(())
    }

    /// Posts the receives of `count` hellos.
    ///
    /// # Errors
    /// UCX's.
    pub fn expect_hellos(&mut self, count: u64) -> Result<(), SideError> {
        for _ in 0..count {
            let param = plain_param(op::NO_IMM_CMPL);
            // SAFETY: the inbox lives as long as the side, which outlives the receive.
            let posted = unsafe {
                (real().tag_recv_nbx)(
                    self.real,
                    self.hellos.inbox.as_mut_ptr().cast(),
                    HELLO_BYTES,
                    HELLO,
                    Tag::MAX,
                    &raw const param,
                )
            };
            match posted.request() {
                Some(request) => self.hellos.awaited.push(request),
                None if posted.status() == Status::OK => {}
                None => return Err(SideError::Hello(posted.status())),
            }
        }
        Ok(())
    }
}

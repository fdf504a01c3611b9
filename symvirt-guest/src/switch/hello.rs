//! Hellos: a small message on each new endpoint, which the library consumes at the other end.
//! When all have come, every endpoint is wired up in both directions, and a new worker has seen
//! nothing else.
//!
//! Where memory can be read by peers, a hello is a synchronous send: its acknowledgement shows that
//! the peer can answer, too. UCX emulates a get by a message with the bytes, read when it can be
//! sent. An answer that had to wait for its connection would contain what a later put has written;
//! osc/ucx relies on their order (`MPI_Get_accumulate` with `MPI_REPLACE`).
//!
//! A side may be abandoned while hellos are under way that no peer will ever take. With a low
//! rendezvous threshold even a hello is a rendezvous, and UCX would keep its bytes registered until
//! it ends: destroying the context then is an assertion in UCX's registration cache, which ends the
//! process. So hellos are of a datatype that UCX can only ask for its bytes ([`greeting_type`]).

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{Datatype, GenericDtOps, RequestParam, Tag};
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::WorkerId;

use super::side::{SideError, WorkerSide, plain_param};
use crate::real::real;

/// Tag of hellos. A new worker sees nothing else until all hellos are consumed.
const HELLO: Tag = 0x5359_4d56_4845_4c4f;
/// Bytes of a hello: enough to be a message, little enough to be eager by default.
const HELLO_BYTES: usize = 8;

static GREETING: [u8; HELLO_BYTES] = HELLO.to_le_bytes();

unsafe extern "C" fn start_pack(_: *mut c_void, _: *const c_void, _: usize) -> *mut c_void {
    GREETING.as_ptr().cast_mut().cast()
}

unsafe extern "C" fn start_unpack(_: *mut c_void, _: *mut c_void, _: usize) -> *mut c_void {
    GREETING.as_ptr().cast_mut().cast()
}

unsafe extern "C" fn packed_size(_: *mut c_void) -> usize {
    HELLO_BYTES
}

unsafe extern "C" fn pack(_: *mut c_void, offset: usize, to: *mut c_void, most: usize) -> usize {
    let rest = GREETING.get(offset..).unwrap_or_default();
    let length = rest.len().min(most);
    // SAFETY: UCX has room for `most` bytes there.
    unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), to.cast(), length) };
    length
}

/// What a hello says is of no interest.
unsafe extern "C" fn unpack(_: *mut c_void, _: usize, _: *const c_void, _: usize) -> Status {
    Status::OK
}

unsafe extern "C" fn finish(_: *mut c_void) {}

/// The datatype of hellos: there is no memory behind it that UCX could register. Made once, for the
/// life of the process.
fn greeting_type() -> Result<Datatype, SideError> {
    static TYPE: OnceLock<Result<Datatype, Status>> = OnceLock::new();
    let made = TYPE.get_or_init(|| {
        let ops = GenericDtOps {
            start_pack: Some(start_pack),
            start_unpack: Some(start_unpack),
            packed_size: Some(packed_size),
            pack: Some(pack),
            unpack: Some(unpack),
            finish: Some(finish),
        };
        let mut datatype = 0;
        // SAFETY: UCX copies the functions; a place for the result.
        match unsafe {
            (real().dt_create_generic)(&raw const ops, ptr::null_mut(), &raw mut datatype)
        } {
            Status::OK => Ok(datatype),
            status => Err(status),
        }
    });
    made.map_err(SideError::Hello)
}

/// Parameters of a hello's send or receive.
fn hello_param(mask: u32) -> Result<RequestParam, SideError> {
    Ok(RequestParam {
        datatype: greeting_type()?,
        ..plain_param(mask | op::DATATYPE)
    })
}

/// The hellos of one new worker.
#[derive(Default)]
pub struct Hellos {
    sending: Vec<*mut c_void>,
    awaited: Vec<*mut c_void>,
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
            let param = hello_param(0)?;
            // SAFETY: a live endpoint; the datatype looks at no buffer.
            let sent = unsafe { send(twin, ptr::null(), 1, HELLO, &raw const param) };
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
            let param = hello_param(op::NO_IMM_CMPL)?;
            // SAFETY: the side's own worker; the datatype looks at no buffer.
            let posted = unsafe {
                (real().tag_recv_nbx)(
                    self.real,
                    ptr::null_mut(),
                    1,
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

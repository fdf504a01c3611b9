//! Requests: what the application waits on.
//!
//! The memory is ours, because MPI embeds its own request behind it and it must survive the
//! worker that the operation started on. Layout, as UCP has it: header, then the application's
//! area; the application holds the address of the area.
//!
//! ```text
//!   real call returns first          completion comes first (inline)
//!   RETURNED ── completion ─► FIRED  FIRED ── real call returns ─► RETURNED
//!        the completer delivers           the poster delivers
//!                    └──────► COMPLETE ◄──────┘
//!   RETURNED + COMPLETE + RELEASED (freed by the application) ─► back to the pool
//! ```

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use symvirt_ffi::ucp::{
    Datatype, SendCallback, SendNbxCallback, Tag, TagRecvCallback, TagRecvInfo, TagRecvNbxCallback,
};
use symvirt_ffi::ucs::{MemoryType, Status};

use super::handle::Mark;
use super::syncs::Ended;
use super::worker::Worker;
use crate::real::real;

/// The completion has come.
pub const FIRED: u32 = 1;
/// The real call has returned its request.
pub const RETURNED: u32 = 2;
/// The application has been told.
pub const COMPLETE: u32 = 4;
/// The application has freed the request.
pub const RELEASED: u32 = 8;
/// The memory belongs to the application (`nbr`, `UCP_OP_ATTR_FIELD_REQUEST`).
pub const USER_OWNED: u32 = 16;

/// What to call at completion.
#[derive(Clone, Copy)]
pub enum Callback {
    None,
    Send(SendCallback),
    SendNbx(SendNbxCallback),
    Recv(TagRecvCallback),
    RecvNbx(TagRecvNbxCallback),
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A send, flush or close.
    Operation,
    /// A synchronous send: complete only when its message is matched.
    SyncSend,
    /// A receive by tag: kept for re-posting until it completes.
    Receive,
    /// A receive of a probed message.
    MessageReceive,
}

/// A receive's arguments: the recipe to post it again.
#[derive(Clone, Copy)]
pub struct Posting {
    pub buffer: *mut c_void,
    pub count: usize,
    pub datatype: Datatype,
    pub memory_type: Option<MemoryType>,
    pub tag: Tag,
    pub mask: Tag,
}

/// The header before the application's area.
#[repr(C)]
pub struct Request {
    /// The real request while the operation is under way.
    pub real: *mut c_void,
    pub worker: *const Worker,
    /// Links of the one list the request is on: pool, posted or deferred.
    pub next: *mut Request,
    pub previous: *mut Request,
    pub posting: Posting,
    pub info: TagRecvInfo,
    pub callback: Callback,
    pub user_data: *mut c_void,
    pub kind: Kind,
    pub status: AtomicI32,
    pub state: AtomicU32,
    /// Last, so that it stands right before the application's area.
    mark: Mark,
}

/// Bytes before the application's area: what `ucp_context_query` reports as request size.
pub const HEADER: usize = size_of::<Request>();

const _: () = {
    assert!(std::mem::offset_of!(Request, mark) + size_of::<Mark>() == HEADER);
    // The mark of a foreign request is looked for inside UCX's own header: 272 bytes in 1.13.
    assert!(HEADER <= 256);
};

impl Request {
    /// A header with nothing under way.
    pub fn blank(worker: *const Worker) -> Request {
        Request {
            real: ptr::null_mut(),
            worker,
            next: ptr::null_mut(),
            previous: ptr::null_mut(),
            posting: Posting {
                buffer: ptr::null_mut(),
                count: 0,
                datatype: 0,
                memory_type: None,
                tag: 0,
                mask: 0,
            },
            info: TagRecvInfo {
                sender_tag: 0,
                length: 0,
            },
            callback: Callback::None,
            user_data: ptr::null_mut(),
            kind: Kind::Operation,
            status: AtomicI32::new(Status::INPROGRESS.0),
            state: AtomicU32::new(0),
            mark: Mark::Request,
        }
    }

    /// What the application holds.
    #[inline(always)]
    pub fn user(request: *mut Request) -> *mut c_void {
        // SAFETY: the area follows the header in the same allocation.
        unsafe { request.add(1).cast() }
    }

    /// Our request behind what the application holds; `None` if it is UCX's own.
    ///
    /// # Safety
    /// `user` is a live request of UCX or of ours.
    #[inline(always)]
    pub unsafe fn from_user(user: *mut c_void) -> Option<*mut Request> {
        let request = user.cast::<Request>().wrapping_sub(1);
        // SAFETY: the word before the area belongs to the request's own header, ours or UCX's.
        let mark = unsafe { user.cast::<u64>().sub(1).read() };
        (mark == Mark::Request as u64).then_some(request)
    }

    /// Sets bits of the state; returns those set before.
    #[inline(always)]
    pub fn set(&self, bits: u32, shared: bool) -> u32 {
        if shared {
            return self.state.fetch_or(bits, Ordering::AcqRel);
        }
        let before = self.state.load(Ordering::Relaxed);
        self.state.store(before | bits, Ordering::Release);
        before
    }

    /// The status that the application may see.
    #[inline(always)]
    pub fn visible_status(&self) -> Status {
        if self.state.load(Ordering::Acquire) & COMPLETE == 0 {
            return Status::INPROGRESS;
        }
        Status(self.status.load(Ordering::Relaxed))
    }
}

/// A completion has come from the real library. Whoever comes second, completion or return of the
/// real call, delivers.
///
/// # Safety
/// `request` is an operation under way on a live worker; called once per operation.
#[inline(always)]
pub unsafe fn fired(request: *mut Request, status: Status) {
    // SAFETY: by the caller's promise, here and below.
    let (header, worker) = unsafe { (&mut *request, &*(*request).worker) };
    header.status.store(status.0, Ordering::Relaxed);
    if header.set(FIRED, worker.shared) & RETURNED == 0 {
        return;
    }
    free_real(header);
    if header.kind != Kind::Receive {
        worker.traffic.operation_ended();
    }
    if header.kind == Kind::SyncSend && worker.syncs.ended(request) == Ended::Unproved {
        return;
    }
    if crate::tls::is_helper() {
        worker.deferred.push(request);
    } else {
        // SAFETY: on an application thread that is inside the gate.
        unsafe { deliver(request) };
    }
}

fn free_real(header: &mut Request) {
    let real_request = std::mem::replace(&mut header.real, ptr::null_mut());
    // SAFETY: a request that the real library returned and that was not freed yet.
    unsafe { (real().request_free)(real_request) };
}

/// A switch has cancelled a posted receive: it waits, as if never posted, for the new worker.
pub fn take_back(header: &mut Request) {
    free_real(header);
    header
        .state
        .fetch_and(!(FIRED | RETURNED), Ordering::AcqRel);
}

/// The real call has returned `real_request`. Says whether the operation is still under way;
/// otherwise it has completed inline and the poster delivers.
///
/// # Safety
/// As for [`fired`].
#[inline(always)]
pub unsafe fn returned(request: *mut Request, real_request: *mut c_void) -> bool {
    // SAFETY: by the caller's promise, here and below.
    let (header, worker) = unsafe { (&mut *request, &*(*request).worker) };
    header.real = real_request;
    let before = header.set(RETURNED, worker.shared);
    if before & FIRED != 0 {
        free_real(header);
        return false;
    }
    if header.kind != Kind::Receive {
        worker.traffic.operation_started();
    }
    true
}

/// Tells the application: callback, then the visible status, in UCX's order.
///
/// # Safety
/// `request` has fired; called once, on an application thread.
pub unsafe fn deliver(request: *mut Request) {
    // SAFETY: by the caller's promise.
    let header = unsafe { &mut *request };
    let status = Status(header.status.load(Ordering::Relaxed));
    let user = Request::user(request);
    // SAFETY: callbacks that the application gave for this operation, with its own user data.
    unsafe {
        match header.callback {
            Callback::Send(Some(callback)) => callback(user, status),
            Callback::SendNbx(Some(callback)) => callback(user, status, header.user_data),
            Callback::Recv(Some(callback)) => callback(user, status, &raw mut header.info),
            Callback::RecvNbx(Some(callback)) => {
                callback(user, status, &raw const header.info, header.user_data);
            }
            Callback::None
            | Callback::Send(None)
            | Callback::SendNbx(None)
            | Callback::Recv(None)
            | Callback::RecvNbx(None) => {}
        }
    }
    // SAFETY: the worker outlives its requests.
    let worker = unsafe { &*header.worker };
    let before = header.set(COMPLETE, worker.shared);
    if before & (RELEASED | RETURNED) == RELEASED | RETURNED {
        worker.pool.put(request);
    }
}

/// The application frees the request; its callback is not called any more.
///
/// # Safety
/// `request` is live and of ours, and not freed before.
pub unsafe fn free(request: *mut Request, keep_callback: bool) {
    // SAFETY: by the caller's promise; the worker outlives its requests.
    let (header, worker) = unsafe { (&mut *request, &*(*request).worker) };
    if !keep_callback {
        header.callback = Callback::None;
    }
    let before = header.set(RELEASED, worker.shared);
    if before & COMPLETE != 0 {
        worker.pool.put(request);
    }
}

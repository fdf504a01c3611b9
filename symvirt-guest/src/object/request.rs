//! Requests: what the application waits on.
//!
//! The memory is ours, because MPI embeds its own request behind it and it must survive the
//! worker that the operation started on. Layout, as UCP has it: header, then the application's
//! area; the application holds the address of the area. Before the header there is room for the
//! real library's own request, so that a receive costs it no request of its pool, and us no call
//! to free it (`UCP_OP_ATTR_FIELD_REQUEST`): there, the header is the area.
//!
//! ```text
//!   | real library's request | header: Request | application's area |
//!                            ^ what it is told  ^ what the application holds
//! ```
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
use std::sync::atomic::{AtomicI8, AtomicU32, Ordering};

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{RequestParam, Tag, TagRecvInfo};
use symvirt_ffi::ucs::Status;

use super::handle::Mark;
use super::syncs::Ended;
use super::worker::Worker;
use crate::real::found;

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

/// Any callback of UCP's operations. All begin with request and status; then come the user data,
/// and before them, of a receive, its description, or of a fetch the length. A function that takes fewer arguments ignores
/// the registers of the others (System V ABI for x86-64, section 3.2.3); UCX relies on that too.
type Callback = unsafe extern "C" fn(*mut c_void, Status, *mut c_void, *mut c_void);

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
    /// Fetching the data of an active message.
    Fetch,
}

/// A receive's arguments: with the request's `param`, the recipe to post it again. Of a send, or
/// another operation, only `count` is valid: the bytes that it sends.
#[derive(Clone, Copy)]
pub struct Posting {
    pub buffer: *mut c_void,
    pub count: usize,
    pub tag: Tag,
    pub mask: Tag,
}

/// The header before the application's area.
#[repr(C)]
pub struct Request {
    /// The application's parameters as the real library gets them: callback, user data and, of a
    /// receive, the request are ours. Only what the mask announces is valid, and `recv_info` if
    /// `asked` announces it.
    pub param: RequestParam,
    pub posting: Posting,
    /// Links of the one list the request is on: pool or posted.
    pub next: *mut Request,
    pub previous: *mut Request,
    /// The real request from its return to the completion, otherwise null: the header's own
    /// address, if the real library was told so.
    pub real: *mut c_void,
    pub worker: *const Worker,
    pub info: TagRecvInfo,
    /// `op_attr_mask` of the application; it announces `callback` and `user_data`.
    pub asked: u32,
    pub kind: Kind,
    /// The real side that it is on, if anybody but a receive asks: see [`Worker::side_of`].
    pub side: u8,
    pub callback: *const c_void,
    pub user_data: *mut c_void,
    pub status: AtomicI8,
    pub state: AtomicU32,
    /// Last, so that it stands right before the application's area.
    mark: Mark,
}

/// Bytes of the header. With the real library's request they are what `ucp_context_query` reports
/// as request size.
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
            param: RequestParam::default(),
            posting: Posting {
                buffer: ptr::null_mut(),
                count: 0,
                tag: 0,
                mask: 0,
            },
            next: ptr::null_mut(),
            previous: ptr::null_mut(),
            real: ptr::null_mut(),
            worker,
            info: TagRecvInfo::default(),
            asked: 0,
            kind: Kind::Operation,
            side: 0,
            callback: ptr::null(),
            user_data: ptr::null_mut(),
            status: AtomicI8::new(Status::INPROGRESS.0),
            state: AtomicU32::new(0),
            mark: Mark::Request,
        }
    }

    /// Takes the mark off a header that goes: UCX may get the memory for requests of its own.
    ///
    /// # Safety
    /// The header is writable, and nobody uses it any more.
    pub unsafe fn blot_out(request: *mut Request) {
        // SAFETY: by the caller's promise; volatile, or the write would be taken for useless.
        unsafe { (&raw mut (*request).mark).cast::<u64>().write_volatile(0) };
    }

    /// Makes a header in memory of the application; only what an operation does not write at its
    /// start anyway is written here.
    ///
    /// # Safety
    /// The memory that `ucp_context_query` asked for lies before `user`.
    #[inline(always)]
    pub unsafe fn in_users_memory(worker: *const Worker, user: *mut c_void) -> *mut Request {
        let request = Request::behind(user);
        // SAFETY: by the caller's promise; fields are written, never read.
        unsafe {
            (&raw mut (*request).worker).write(worker);
            (&raw mut (*request).real).write(ptr::null_mut());
            (&raw mut (*request).state).write(AtomicU32::new(USER_OWNED));
            Request::name_itself(request);
            (&raw mut (*request).mark).write(Mark::Request);
        }
        request
    }

    /// Writes what the real library is told of the request itself: the same in all operations.
    ///
    /// # Safety
    /// The header is writable.
    #[inline(always)]
    pub unsafe fn name_itself(request: *mut Request) {
        // SAFETY: by the caller's promise.
        unsafe {
            (&raw mut (*request).param.request).write(request.cast());
            (&raw mut (*request).param.user_data).write(request.cast());
        }
    }

    /// What the application holds.
    #[inline(always)]
    pub fn user(request: *mut Request) -> *mut c_void {
        // SAFETY: the area follows the header in the same allocation.
        unsafe { request.add(1).cast() }
    }

    /// The request behind what the application holds, if it is ours.
    #[inline(always)]
    pub fn behind(user: *mut c_void) -> *mut Request {
        user.cast::<Request>().wrapping_sub(1)
    }

    /// Our request behind what the application holds; `None` if it is UCX's own.
    ///
    /// # Safety
    /// `user` is a live request of UCX or of ours.
    #[inline(always)]
    pub unsafe fn from_user(user: *mut c_void) -> Option<*mut Request> {
        // SAFETY: the word before the area belongs to the request's own header, ours or UCX's.
        let mark = unsafe { user.cast::<u64>().sub(1).read() };
        (mark == Mark::Request as u64).then(|| Request::behind(user))
    }

    /// Sets bits of the state; returns those set before. One thread at a time writes the state,
    /// the one whose turn it is with the worker; any thread may read it.
    #[inline(always)]
    pub fn set(&self, bits: u32) -> u32 {
        let before = self.state.load(Ordering::Relaxed);
        self.state.store(before | bits, Ordering::Release);
        before
    }

    /// Whether it is under way on a side that its worker has left for such operations: it will
    /// complete, and cannot be cancelled any more.
    pub fn is_left_behind(&self, worker: &Worker) -> bool {
        self.kind != Kind::Receive && self.side != worker.side_of(self.kind)
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

/// Copies a description word by word, as it was written a moment ago: a load of both words at once
/// would wait until both stores have reached the cache.
///
/// # Safety
/// As for a copy.
#[inline(always)]
pub unsafe fn copy_info(from: *const TagRecvInfo, to: *mut TagRecvInfo) {
    // SAFETY: by the caller's promise; volatile keeps the compiler from joining the loads.
    unsafe {
        (*to).sender_tag = (&raw const (*from).sender_tag).read_volatile();
        (*to).length = (&raw const (*from).length).read_volatile();
    }
}

/// A completion has come from the real library. Whoever comes second, completion or return of the
/// real call, delivers.
///
/// # Safety
/// `request` is an operation of this kind under way on `worker`; called once per operation.
#[inline(always)]
pub unsafe fn fired(request: *mut Request, worker: &Worker, status: Status, kind: Kind) {
    // SAFETY: by the caller's promise, here and below.
    let header = unsafe { &mut *request };
    header.status.store(status.0, Ordering::Relaxed);
    let has_returned = header.state.load(Ordering::Acquire) & RETURNED != 0;
    if !has_returned && header.set(FIRED) & RETURNED == 0 {
        return;
    }
    free_real(header);
    if kind != Kind::Receive {
        worker.traffic.operation_ended(header.side);
    }
    if matches!(kind, Kind::Operation | Kind::SyncSend) && header.posting.count > 0 {
        worker.traffic.sending_ended(header.posting.count);
    }
    if kind == Kind::SyncSend && worker.syncs.ended(request) == Ended::Unproved {
        return;
    }
    if crate::tls::is_helper() {
        worker.deferred.push(request);
    } else {
        // SAFETY: on an application thread that is inside the gate.
        unsafe { deliver(request, kind) };
    }
}

/// The real request has completed; the real library's own memory goes back to it.
#[inline(always)]
fn free_real(header: &mut Request) {
    let real = std::mem::replace(&mut header.real, ptr::null_mut());
    if header.param.op_attr_mask & op::REQUEST == 0 {
        // SAFETY: a request that the real library returned and that was not freed yet.
        unsafe { (found().request_free)(real) };
    }
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
pub unsafe fn returned(
    request: *mut Request,
    worker: &Worker,
    real_request: *mut c_void,
    kind: Kind,
) -> bool {
    // SAFETY: by the caller's promise.
    let header = unsafe { &mut *request };
    header.real = real_request;
    if header.set(RETURNED) & FIRED != 0 {
        free_real(header);
        return false;
    }
    if kind != Kind::Receive {
        header.side = worker.side_of(kind);
        worker.traffic.operation_started(header.side);
    }
    true
}

/// Tells the application: callback, then the visible status, in UCX's order.
///
/// # Safety
/// `request` is of this kind and has fired; called once, on an application thread.
#[inline(always)]
pub unsafe fn deliver(request: *mut Request, kind: Kind) {
    // SAFETY: by the caller's promise.
    let header = unsafe { &mut *request };
    if header.asked & op::CALLBACK != 0 {
        let (third, fourth) = match kind {
            Kind::Operation | Kind::SyncSend => (header.user_data, ptr::null_mut()),
            Kind::Receive | Kind::MessageReceive => {
                ((&raw mut header.info).cast(), header.user_data)
            }
            Kind::Fetch => {
                let length = ptr::without_provenance_mut(header.info.length);
                (length, header.user_data)
            }
        };
        let status = Status(header.status.load(Ordering::Relaxed));
        // SAFETY: the callback that the application gave for this operation; see [`Callback`].
        unsafe {
            let callback = std::mem::transmute::<*const c_void, Callback>(header.callback);
            callback(Request::user(request), status, third, fourth);
        }
    }
    if header.set(COMPLETE) & RELEASED != 0 {
        // SAFETY: the worker outlives its requests.
        unsafe { &*header.worker }.pool.put(request);
    }
}

/// The application frees the request. What is complete nobody else touches any more, a switch
/// included: that needs no passage through the gate.
///
/// # Safety
/// `request` is live and of ours, and not freed before.
#[inline(always)]
pub unsafe fn free(request: *mut Request) {
    // SAFETY: by the caller's promise; the worker outlives its requests.
    let (header, worker) = unsafe { (&*request, &*(*request).worker) };
    let state = header.state.load(Ordering::Acquire);
    if state & (COMPLETE | USER_OWNED) != COMPLETE {
        // SAFETY: by the caller's promise.
        unsafe { free_early(request, false) };
    } else if worker.is_shared() {
        give_back(request, worker);
    } else {
        worker.pool.put(request);
    }
}

/// Gives a request back that is done with, to a worker that threads share.
#[inline(never)]
fn give_back(request: *mut Request, worker: &Worker) {
    let _turn = worker.turn();
    worker.pool.put(request);
}

/// The application frees a request that may still be under way. Unless the callback is kept, it
/// is not called any more.
///
/// # Safety
/// As [`free`].
#[cold]
#[inline(never)]
pub unsafe fn free_early(request: *mut Request, keep_callback: bool) {
    // SAFETY: by the caller's promise; the worker outlives its requests.
    let worker = unsafe { &*(*request).worker };
    let _inside = worker.enter();
    // SAFETY: as above.
    let header = unsafe { &mut *request };
    if !keep_callback {
        header.asked &= !op::CALLBACK;
    }
    if header.state.load(Ordering::Relaxed) & USER_OWNED == 0
        && header.set(RELEASED) & COMPLETE != 0
    {
        worker.pool.put(request);
    }
}

//! Memory of requests: one pool per worker, in slabs, never given back before the worker ends.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::Ordering;

use symvirt_ffi::ucp::RequestInit;

use super::request::{HEADER, Request};
use super::worker::Worker;

const PER_SLAB: usize = 64;
const ALIGN: usize = 64;

/// What the application asked of its requests at `ucp_init`.
#[derive(Clone, Copy)]
pub struct RequestSpec {
    /// Bytes of the real library's own request, which stands before ours.
    pub real: usize,
    /// Bytes of the application's area.
    pub size: usize,
    pub init: RequestInit,
    pub cleanup: RequestInit,
}

impl RequestSpec {
    /// What `ucp_context_query` reports: bytes before the application's area.
    pub fn reported(&self) -> usize {
        self.real + HEADER
    }

    /// Bytes before a header of the pool.
    fn before(&self) -> usize {
        self.real.next_multiple_of(ALIGN)
    }
}

/// Free requests, their state zero. Helpers stay away: only application threads take and return,
/// inside the gate and in their turn with the worker.
pub struct Pool {
    spec: RequestSpec,
    state: UnsafeCell<State>,
}

struct State {
    /// Lent to one send at a time, that of the thread that is alone with the worker. Most small
    /// messages are gone when the real call returns: then it was never taken.
    spare: *mut Request,
    free: *mut Request,
    slabs: Vec<*mut u8>,
}

impl Pool {
    pub fn new(spec: RequestSpec) -> Pool {
        let state = State {
            spare: ptr::null_mut(),
            free: ptr::null_mut(),
            slabs: Vec::new(),
        };
        Pool {
            spec,
            state: UnsafeCell::new(state),
        }
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "one thread at a time is here")]
    fn state(&self) -> &mut State {
        // SAFETY: only the thread whose turn it is with the worker comes here, and nothing that is
        // called meanwhile comes back.
        unsafe { &mut *self.state.get() }
    }

    /// A request of the pool. Its fields are stale, but for the worker, the state and the mark.
    #[inline(always)]
    pub fn get(&self, worker: &Worker) -> *mut Request {
        let state = self.state();
        if state.free.is_null() {
            self.grow(state, worker);
        }
        let request = state.free;
        // SAFETY: `grow` never leaves the list empty; its members are valid headers.
        state.free = unsafe { (*request).next };
        request
    }

    /// Takes a request of this pool back.
    #[inline(always)]
    pub fn put(&self, request: *mut Request) {
        // SAFETY: nobody else uses it any more.
        let header = unsafe { &mut *request };
        header.state.store(0, Ordering::Relaxed);
        let state = self.state();
        header.next = state.free;
        state.free = request;
    }

    /// A request for a send that probably leaves no trace: it is taken only by [`Pool::take_spare`],
    /// which must have been called once.
    #[inline(always)]
    pub fn spare(&self) -> *mut Request {
        self.state().spare
    }

    /// Makes another request the spare one.
    pub fn take_spare(&self, worker: &Worker) {
        self.state().spare = self.get(worker);
    }

    /// The request that comes next, or null.
    #[inline(always)]
    pub fn first(&self) -> *mut Request {
        self.state().free
    }

    /// Takes the first request.
    ///
    /// # Safety
    /// `first` is what [`Pool::first`] has returned just now, and not null.
    #[inline(always)]
    pub unsafe fn take_first(&self, first: *mut Request) {
        // SAFETY: members of the list are valid headers.
        self.state().free = unsafe { (*first).next };
    }

    fn stride(&self) -> usize {
        self.spec.before() + (HEADER + self.spec.size).next_multiple_of(ALIGN)
    }

    /// A request of a slab.
    fn nth(&self, slab: *mut u8, index: usize) -> *mut Request {
        slab.wrapping_add(index * self.stride() + self.spec.before())
            .cast()
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.stride() * PER_SLAB, ALIGN)
            .expect("invariant: a slab of requests is far below isize::MAX")
    }

    #[cold]
    fn grow(&self, state: &mut State, worker: *const Worker) {
        // SAFETY: the layout is not empty.
        let slab = unsafe { alloc_zeroed(self.layout()) };
        if slab.is_null() {
            handle_alloc_error(self.layout());
        }
        for index in (0..PER_SLAB).rev() {
            let request = self.nth(slab, index);
            // SAFETY: within the slab, aligned, exclusively ours.
            unsafe { request.write(Request::blank(worker)) };
            // SAFETY: just written.
            unsafe { Request::name_itself(request) };
            if let Some(init) = self.spec.init {
                // SAFETY: UCP's contract: called once for each request's area.
                unsafe { init(Request::user(request)) };
            }
            // SAFETY: just written.
            unsafe { (*request).next = state.free };
            state.free = request;
        }
        state.slabs.push(slab);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let layout = self.layout();
        for slab in std::mem::take(&mut self.state.get_mut().slabs) {
            for index in 0..PER_SLAB {
                let request = self.nth(slab, index);
                if let Some(cleanup) = self.spec.cleanup {
                    // SAFETY: UCP's contract: called once for each request's area.
                    unsafe { cleanup(Request::user(request)) };
                }
                // SAFETY: within the slab, made by `grow`.
                unsafe { Request::blot_out(request) };
            }
            // SAFETY: allocated with this layout.
            unsafe { dealloc(slab, layout) };
        }
    }
}

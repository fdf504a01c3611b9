//! A worker: where messages arrive, and everything that must survive a switch of transports.

use std::collections::HashSet;
use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use symvirt_ffi::flags::worker_param;
use symvirt_ffi::ucp::WorkerParams;
use symvirt_ffi::ucs::{
    CpuSet, Status, THREAD_MODE_MULTI, THREAD_MODE_SERIALIZED, THREAD_MODE_SINGLE, ThreadMode,
};
use symvirt_protocol::ids::WorkerId;

use super::context::Context;
use super::deferred::Deferred;
use super::descriptor::Descriptors;
use super::drained::Drained;
use super::endpoint::Endpoint;
use super::handle::Mark;
use super::handlers::Handlers;
use super::headers::Headers;
use super::key::Key;
use super::lock;
use super::message::Messages;
use super::pool::Pool;
use super::posted::Posted;
use super::request::Kind;
use super::route::Routes;
use super::syncs::Syncs;
use super::traffic::Traffic;
use crate::gate::{self, Passage};
use crate::real::real;
use crate::tls;
use crate::turn::{Turn, Turns};

/// Our `ucp_worker_h`.
#[repr(C)]
pub struct Worker {
    mark: Mark,
    real: AtomicPtr<c_void>,
    /// Where several application threads may use it at once.
    turns: Option<Turns>,
    /// Set while a switch takes posted receives back: a cancelled one is not the application's.
    pub reposting: AtomicBool,
    pub traffic: Traffic,
    pub deferred: Deferred,
    pub drained: Drained,
    pub posted: Posted,
    pub pool: Pool,
    pub messages: Messages,
    pub handlers: Handlers,
    pub headers: Headers,
    pub descriptors: Descriptors,
    /// Real sides that it has left so far.
    pub side: AtomicU64,
    pub syncs: Syncs,
    /// While sends lead over the next side already: its real worker, see `switch::flip`.
    ahead: AtomicPtr<c_void>,
    /// Times that the application drove both sides.
    pub pulse: AtomicU64,
    pub id: WorkerId,
    pub context: *const Context,
    /// What the application asked for: the real one is SERIALIZED.
    pub thread_mode: ThreadMode,
    params: WorkerParams,
    pub routes: Routes,
    endpoints: Mutex<HashSet<*const Endpoint>>,
    keys: Mutex<HashSet<*const Key>>,
}

// SAFETY: the raw pointers name objects that are changed only under the closed gate or locks.
unsafe impl Send for Worker {}
// SAFETY: as above.
unsafe impl Sync for Worker {}

/// A passage through the gate in the thread's turn with a worker; dropping it ends both.
pub struct Inside<'a> {
    _turn: Turn<'a>,
    /// Last: whoever has a turn is inside.
    _passage: Passage,
}

impl Worker {
    /// Makes a worker, real side and all.
    ///
    /// # Errors
    /// UCX's.
    ///
    /// # Safety
    /// `params` is the application's, readable by its `field_mask`.
    pub unsafe fn create(
        context: &Context,
        params: *const WorkerParams,
        id: WorkerId,
    ) -> Result<Box<Worker>, Status> {
        // SAFETY: by the caller's promise.
        let (params, thread_mode) = unsafe { copy_params(params) };
        let worker = Box::new(Worker {
            mark: Mark::Worker,
            real: AtomicPtr::new(ptr::null_mut()),
            turns: (thread_mode == THREAD_MODE_MULTI).then(Turns::new),
            reposting: AtomicBool::new(false),
            traffic: Traffic::default(),
            deferred: Deferred::default(),
            drained: Drained::default(),
            posted: Posted::new(),
            pool: Pool::new(context.requests),
            messages: Messages::default(),
            handlers: Handlers::default(),
            headers: Headers::default(),
            descriptors: Descriptors::default(),
            side: AtomicU64::new(0),
            syncs: Syncs::default(),
            ahead: AtomicPtr::new(ptr::null_mut()),
            pulse: AtomicU64::new(0),
            id,
            context,
            thread_mode,
            params,
            routes: Routes::default(),
            endpoints: Mutex::default(),
            keys: Mutex::default(),
        });
        worker.swap_real(worker.make_real(context.real())?);
        worker.pool.take_spare(&worker);
        Ok(worker)
    }

    /// Whether several application threads may use it at once.
    #[inline(always)]
    pub fn is_shared(&self) -> bool {
        self.turns.is_some()
    }

    /// Passes the gate and waits for the turn with this worker. A thread that has both, in a
    /// callback that UCX makes, passes at once.
    #[inline(always)]
    pub fn enter(&self) -> Inside<'_> {
        let passage = gate::enter();
        Inside {
            _turn: self.turn(),
            _passage: passage,
        }
    }

    /// Waits for the turn with this worker.
    #[inline(always)]
    pub fn turn(&self) -> Turn<'_> {
        match &self.turns {
            None => Turn::NEEDLESS,
            Some(turns) => turns.take(name()),
        }
    }

    /// Passes the gate at once, if it is open, the thread is outside, and no other may use the
    /// worker; otherwise the caller must go on to [`Worker::enter`].
    #[inline(always)]
    pub fn enter_alone(&self) -> Option<Passage> {
        if self.is_shared() {
            return None;
        }
        gate::enter_at_once()
    }

    /// As [`Worker::enter_alone`], if others may use the worker and none does.
    #[inline(always)]
    pub fn enter_in_turn(&self) -> Option<Inside<'_>> {
        let turns = self.turns.as_ref()?;
        let passage = gate::enter_at_once()?;
        Some(Inside {
            _turn: turns.take_at_once(name())?,
            _passage: passage,
        })
    }

    /// The real worker in use.
    #[inline(always)]
    pub fn real(&self) -> *mut c_void {
        self.real.load(Ordering::Relaxed)
    }

    /// Changes the real side; under the closed gate. Returns the old one.
    pub fn swap_real(&self, new: *mut c_void) -> *mut c_void {
        self.real.swap(new, Ordering::Relaxed)
    }

    /// The real worker of the next side while sends lead over it already, otherwise null.
    pub fn ahead(&self) -> *mut c_void {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Lets sends lead over a next side, or ends that; under the closed gate. Returns what
    /// [`Worker::ahead`] was.
    pub fn set_ahead(&self, ahead: *mut c_void) -> *mut c_void {
        self.ahead.swap(ahead, Ordering::Relaxed)
    }

    /// The real worker that endpoints lead over, and whose address peers are to know.
    pub fn sending_real(&self) -> *mut c_void {
        let ahead = self.ahead();
        if ahead.is_null() { self.real() } else { ahead }
    }

    /// The real side on which an operation starts now, counted from 0 on and around.
    pub fn side_of(&self, kind: Kind) -> u8 {
        let is_ahead = matches!(kind, Kind::Operation | Kind::SyncSend) && !self.ahead().is_null();
        self.side.load(Ordering::Relaxed) as u8 & 1 ^ u8::from(is_ahead)
    }

    /// Makes a real worker in `real_context`, with all handlers.
    ///
    /// # Errors
    /// UCX's; nothing is left behind.
    pub fn make_real(&self, real_context: *mut c_void) -> Result<*mut c_void, Status> {
        let made = make_real(real_context, &self.params)?;
        // SAFETY: a context outlives its workers.
        if unsafe { &*self.context }.has_active_messages() {
            self.handlers.install(self, made).inspect_err(|_| {
                // SAFETY: made just now, and known to nobody.
                unsafe { (real().worker_destroy)(made) };
            })?;
        }
        Ok(made)
    }

    /// Where copies of active messages' data are to begin: at a multiple of this many bytes.
    pub fn am_alignment(&self) -> usize {
        self.params.am_alignment
    }

    /// Adds an endpoint.
    pub fn adopt(&self, endpoint: Endpoint) -> *const Endpoint {
        let endpoint = Box::into_raw(Box::new(endpoint)).cast_const();
        lock(&self.endpoints).insert(endpoint);
        endpoint
    }

    /// Takes an endpoint off the list, and its memory back.
    ///
    /// # Safety
    /// Of this worker, and not used any more.
    pub unsafe fn drop_endpoint(&self, endpoint: *const Endpoint) {
        if lock(&self.endpoints).remove(&endpoint) {
            // SAFETY: made by `adopt`, and off the list just now.
            drop(unsafe { Box::from_raw(endpoint.cast_mut()) });
        }
    }

    /// Adds a key.
    pub fn adopt_key(&self, key: Key) -> *const Key {
        let key = Box::into_raw(Box::new(key)).cast_const();
        lock(&self.keys).insert(key);
        key
    }

    /// Takes a key off the list, and its memory back.
    ///
    /// # Safety
    /// Of this worker, and not used any more.
    pub unsafe fn drop_key(&self, key: *const Key) {
        if lock(&self.keys).remove(&key) {
            // SAFETY: made by `adopt_key`, and off the list just now.
            drop(unsafe { Box::from_raw(key.cast_mut()) });
        }
    }

    /// Calls `body` with every key; none is destroyed meanwhile.
    pub fn each_key(&self, mut body: impl FnMut(&Key)) {
        for &key in lock(&self.keys).iter() {
            // SAFETY: listed keys are live.
            body(unsafe { &*key });
        }
    }

    /// Whether it is one of this worker's endpoints.
    pub fn has_endpoint(&self, endpoint: *const Endpoint) -> bool {
        lock(&self.endpoints).contains(&endpoint)
    }

    /// An endpoint of which `wanted` is true.
    pub fn find_endpoint(&self, wanted: impl Fn(&Endpoint) -> bool) -> Option<*const Endpoint> {
        let endpoints = lock(&self.endpoints);
        let is_wanted = |endpoint: &*const Endpoint| {
            // SAFETY: listed endpoints are live.
            wanted(unsafe { &**endpoint })
        };
        endpoints.iter().copied().find(is_wanted)
    }

    /// Calls `body` with every endpoint; none is closed meanwhile.
    pub fn each_endpoint(&self, mut body: impl FnMut(&Endpoint)) {
        for &endpoint in lock(&self.endpoints).iter() {
            // SAFETY: listed endpoints are live.
            body(unsafe { &*endpoint });
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for endpoint in std::mem::take(&mut *lock(&self.endpoints)) {
            // SAFETY: made by `adopt`; the application has destroyed the worker with them.
            drop(unsafe { Box::from_raw(endpoint.cast_mut()) });
        }
        for key in std::mem::take(&mut *lock(&self.keys)) {
            // SAFETY: made by `adopt_key`; as above.
            drop(unsafe { Box::from_raw(key.cast_mut()) });
        }
    }
}

/// What the calling thread is called where threads take turns.
#[inline(always)]
fn name() -> usize {
    ptr::from_ref(tls::mode()).addr()
}

fn make_real(real_context: *mut c_void, params: &WorkerParams) -> Result<*mut c_void, Status> {
    let mut worker = ptr::null_mut();
    // SAFETY: a live context, our parameters, and a place for the result.
    match unsafe { (real().worker_create)(real_context, params, &raw mut worker) } {
        Status::OK => Ok(worker),
        status => Err(status),
    }
}

/// UCX's address of a real worker.
///
/// # Errors
/// UCX's.
pub fn real_address(real_worker: *mut c_void) -> Result<Vec<u8>, Status> {
    let (mut address, mut length) = (ptr::null_mut(), 0);
    // SAFETY: a live worker and places for the results.
    let status =
        unsafe { (real().worker_get_address)(real_worker, &raw mut address, &raw mut length) };
    if status != Status::OK {
        return Err(status);
    }
    // SAFETY: UCX describes `length` bytes that live until they are released.
    let bytes = unsafe { slice::from_raw_parts(address.cast::<u8>(), length) }.to_vec();
    // SAFETY: got from this worker just now.
    unsafe { (real().worker_release_address)(real_worker, address) };
    Ok(bytes)
}

/// The application's parameters, and the thread mode it asked for. All modes become SERIALIZED: a
/// helper uses the worker too, never at the same time, and threads that share it take turns.
///
/// # Safety
/// `params` is readable by its `field_mask`.
unsafe fn copy_params(params: *const WorkerParams) -> (WorkerParams, ThreadMode) {
    const KEPT: u64 = worker_param::CPU_MASK
        | worker_param::EVENTS
        | worker_param::USER_DATA
        | worker_param::FLAGS
        | worker_param::AM_ALIGNMENT;
    // SAFETY: each field only if announced.
    unsafe {
        let mask = (*params).field_mask;
        let has = |field| mask & field != 0;
        let asked = if has(worker_param::THREAD_MODE) {
            (*params).thread_mode
        } else {
            THREAD_MODE_SINGLE
        };
        let copy = WorkerParams {
            field_mask: (mask & KEPT) | worker_param::THREAD_MODE,
            thread_mode: THREAD_MODE_SERIALIZED,
            cpu_mask: if has(worker_param::CPU_MASK) {
                (*params).cpu_mask
            } else {
                CpuSet { bits: [0; 16] }
            },
            events: if has(worker_param::EVENTS) {
                (*params).events
            } else {
                0
            },
            user_data: if has(worker_param::USER_DATA) {
                (*params).user_data
            } else {
                ptr::null_mut()
            },
            event_fd: -1,
            flags: if has(worker_param::FLAGS) {
                (*params).flags
            } else {
                0
            },
            name: ptr::null(),
            am_alignment: if has(worker_param::AM_ALIGNMENT) {
                (*params).am_alignment
            } else {
                0
            },
            client_id: 0,
        };
        (copy, asked)
    }
}

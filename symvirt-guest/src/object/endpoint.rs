//! An endpoint: the application's way to one peer worker, over a [`Route`].

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use symvirt_ffi::flags::ep_param;
use symvirt_ffi::ucp::{EpParams, ErrHandler};
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::WorkerId;

use super::handle::Mark;
use super::route::Route;
use super::worker::Worker;

/// Our `ucp_ep_h`.
#[repr(C)]
pub struct Endpoint {
    mark: Mark,
    real: AtomicPtr<c_void>,
    pub worker: *const Worker,
    /// Messages sent to the peer in this epoch: each call that returned no error.
    pub sent: AtomicU64,
    /// The peer's memory was accessed over it in this epoch, and not flushed by the drain.
    accessed: AtomicBool,
    /// It was, and was flushed.
    used: AtomicBool,
    /// Nothing was done over it in all of an epoch in which it could be used.
    silent: AtomicBool,
    /// A switch made its real side without a hello, or left that to its first use: the peer may not
    /// be able to answer at once.
    unanswered: AtomicBool,
    /// `None` when the peer is not of our gang; then the process vetoes switches.
    pub route: Option<Route>,
    err_handler: ErrHandler,
}

impl Endpoint {
    /// Makes an endpoint that leads over a real one.
    pub fn new(
        worker: *const Worker,
        real: *mut c_void,
        route: Option<Route>,
        err_handler: ErrHandler,
    ) -> Endpoint {
        Endpoint {
            mark: Mark::Endpoint,
            real: AtomicPtr::new(real),
            worker,
            sent: AtomicU64::new(0),
            accessed: AtomicBool::new(false),
            used: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
            route,
            err_handler,
        }
    }

    /// The real endpoint in use; null while it sleeps, and once its peer has gone.
    #[inline(always)]
    pub fn real(&self) -> *mut c_void {
        self.real.load(Ordering::Relaxed)
    }

    /// Changes the real side; under the closed gate.
    pub fn set_real(&self, new: *mut c_void) {
        self.real.store(new, Ordering::Relaxed);
    }

    /// Whether a first answer of the peer is to be waited for, before anything is asked for that
    /// must be answered in time.
    #[inline(always)]
    pub fn is_unanswered(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// The first answer has come.
    pub fn set_answered(&self) {
        self.unanswered.store(false, Ordering::Relaxed);
    }

    /// The peer's memory is accessed over it. Not a counter of the hot path: it is set far more
    /// often than read.
    #[inline(always)]
    pub fn note_access(&self) {
        self.accessed.store(true, Ordering::Relaxed);
    }

    /// Whether the peer's memory was accessed since the last call; under the closed gate.
    pub fn take_accesses(&self) -> bool {
        let accessed = self.accessed.swap(false, Ordering::Relaxed);
        if accessed {
            self.used.store(true, Ordering::Relaxed);
        }
        accessed
    }

    /// Whether it leads nowhere yet: see [`wake`](crate::process::endpoints::wake).
    #[inline(always)]
    pub fn is_asleep(&self) -> bool {
        self.real().is_null()
    }

    /// Whether the next side needs it ready: it is in use, or new.
    pub fn is_busy(&self) -> bool {
        self.is_used() || !self.silent.load(Ordering::Relaxed)
    }

    /// Whether anything was sent or asked for over it in this epoch.
    #[inline(always)]
    pub fn is_used(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > 0
            || self.accessed.load(Ordering::Relaxed)
            || self.used.load(Ordering::Relaxed)
    }

    /// A new epoch, in which it leads over `twin`, or sleeps; under the closed gate.
    pub fn begin_epoch(&self, twin: Option<*mut c_void>) {
        if self.is_used() {
            self.silent.store(false, Ordering::Relaxed);
        } else if twin.is_some() {
            self.silent.store(true, Ordering::Relaxed);
        }
        self.sent.store(0, Ordering::Relaxed);
        self.accessed.store(false, Ordering::Relaxed);
        self.used.store(false, Ordering::Relaxed);
        self.unanswered.store(twin.is_none(), Ordering::Relaxed);
        self.set_real(twin.unwrap_or(std::ptr::null_mut()));
    }

    /// The worker at the other end, if it is of our gang.
    pub fn peer(&self) -> Option<WorkerId> {
        self.route.map(|route| route.peer)
    }

    /// Counts one message.
    #[inline(always)]
    pub fn count_sent(&self) {
        super::traffic::bump(&self.sent);
    }
}

/// Tells the application that the peer is lost. Its handler may close the endpoint.
///
/// # Safety
/// A live endpoint, on an application thread.
pub unsafe fn fail(endpoint: *const Endpoint, status: Status) {
    // SAFETY: live until the handler is called.
    let (handler, peer) = unsafe { ((*endpoint).err_handler, (*endpoint).peer()) };
    match handler.cb {
        // SAFETY: the application's own handler and argument.
        Some(callback) => unsafe { callback(handler.arg, endpoint.cast_mut().cast(), status) },
        None => crate::log::warning!(
            "endpoint to {peer:?} failed, and the application handles no errors: {status}"
        ),
    }
}

/// A copy of the application's parameters that can be handed to UCX: what an endpoint by worker
/// address may have, zero where not announced.
///
/// # Safety
/// `params` is readable by its `field_mask`.
pub unsafe fn copy_params(params: *const EpParams) -> EpParams {
    const KEPT: u64 = ep_param::REMOTE_ADDRESS
        | ep_param::ERR_HANDLING_MODE
        | ep_param::ERR_HANDLER
        | ep_param::USER_DATA
        | ep_param::FLAGS;
    let mut copy = EpParams::default();
    // SAFETY: each field only if announced.
    unsafe {
        copy.field_mask = (*params).field_mask & KEPT;
        let has = |field| copy.field_mask & field != 0;
        if has(ep_param::REMOTE_ADDRESS) {
            copy.address = (*params).address;
        }
        if has(ep_param::ERR_HANDLING_MODE) {
            copy.err_mode = (*params).err_mode;
        }
        if has(ep_param::ERR_HANDLER) {
            copy.err_handler = (*params).err_handler;
        }
        if has(ep_param::USER_DATA) {
            copy.user_data = (*params).user_data;
        }
        if has(ep_param::FLAGS) {
            copy.flags = (*params).flags;
        }
    }
    copy
}

/// Whom to tell of errors: UCP lets the endpoint's user data replace the handler's argument.
pub fn error_handler(params: &EpParams) -> ErrHandler {
    let mut handler = params.err_handler;
    if params.field_mask & ep_param::USER_DATA != 0 {
        handler.arg = params.user_data;
    }
    handler
}

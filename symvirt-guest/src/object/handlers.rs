//! The application's handlers of active messages.
//!
//! The real worker knows one callback of ours for every id, from the first on; which handler is
//! the application's stands in our table. So handlers survive a switch, and may be set and cleared
//! during one.
//!
//! ```text
//!   real worker ─► on_message: counts ─┬─ application thread, nothing waiting ─► its handler
//!                                      └─ helper, or older ones wait ─► Deferred ─┘ later
//! ```
//!
//! Ids without a handler are registered too: a message to one of them is dropped, as UCX does, but
//! it has arrived. All there may be are too many for that: to ids from [`WIDE`] on our side sends
//! by the one id [`WIDE`], and a [`Trailer`] names the other. These are registered under their own
//! names only for senders without the library, and only with a handler.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use symvirt_ffi::flags::{am_handler, am_handler_param, am_recv_attr};
use symvirt_ffi::ucp::{AmHandlerParam, AmRecvParam};
use symvirt_ffi::ucs::Status;
use symvirt_protocol::trailer::Trailer;

use super::arrival::{Arrival, Data};
use super::descriptor::{Bytes, Content, Held};
use super::endpoint::Endpoint;
use super::handler::{Handler, Message};
use super::lock;
use super::reply::{self, Reply};
use super::worker::Worker;
use crate::real::real;

/// The lowest id that a trailer names: below are those that applications use, and microseconds.
pub const WIDE: u16 = 256;

/// One id of one worker: the argument of our callback.
pub struct Slot {
    worker: *const Worker,
    id: u16,
    /// Null while the application has none.
    handler: AtomicPtr<Handler>,
    /// All that ever were: another thread may be in one that was replaced.
    #[allow(
        clippy::vec_box,
        reason = "their addresses are in use while the list grows"
    )]
    owned: Mutex<Vec<Box<Handler>>>,
}

/// By id. Boxed: real workers hold their addresses.
type Slots = BTreeMap<u16, Box<Slot>>;

/// The slots of one worker.
#[derive(Default)]
pub struct Handlers(Mutex<Slots>);

// SAFETY: the pointers name the worker itself and the application's own functions and arguments.
unsafe impl Send for Handlers {}
// SAFETY: as above; the list is under its lock, a slot's handler is exchanged whole.
unsafe impl Sync for Handlers {}

impl Handlers {
    /// Registers what has to be registered with a real worker of `worker`.
    ///
    /// # Errors
    /// UCX's.
    pub fn install(&self, worker: &Worker, real_worker: *mut c_void) -> Result<(), Status> {
        let mut slots = lock(&self.0);
        for id in 0..=WIDE {
            slots.entry(id).or_insert_with(|| Slot::new(worker, id));
        }
        let mut known = slots
            .values()
            .filter(|slot| slot.id <= WIDE || slot.handler().is_some());
        known.try_for_each(|slot| slot.register(real_worker))
    }

    /// Sets or clears the handler of an id.
    ///
    /// # Errors
    /// UCX's.
    ///
    /// # Safety
    /// On an application thread, inside the gate.
    pub unsafe fn set(
        &self,
        worker: &Worker,
        id: u16,
        handler: Option<Handler>,
    ) -> Result<(), Status> {
        let mut slots = lock(&self.0);
        let slot = slots.entry(id).or_insert_with(|| Slot::new(worker, id));
        slot.set(handler);
        // A side that is being built may miss it. So does it miss the senders that need it.
        match id {
            0..=WIDE => Ok(()),
            _ => slot.register(worker.real()),
        }
    }

    /// The slot of an id that a trailer names.
    fn named(&self, worker: &Worker, id: u16) -> *const Slot {
        let mut slots = lock(&self.0);
        let slot = slots.entry(id).or_insert_with(|| Slot::new(worker, id));
        ptr::from_ref::<Slot>(slot)
    }
}

impl Slot {
    fn new(worker: *const Worker, id: u16) -> Box<Slot> {
        Box::new(Slot {
            worker,
            id,
            handler: AtomicPtr::new(ptr::null_mut()),
            owned: Mutex::default(),
        })
    }

    fn register(&self, real_worker: *mut c_void) -> Result<(), Status> {
        let param = AmHandlerParam {
            field_mask: am_handler_param::ID
                | am_handler_param::FLAGS
                | am_handler_param::CB
                | am_handler_param::ARG,
            id: self.id.into(),
            flags: am_handler::WHOLE_MSG,
            cb: Some(on_message),
            arg: ptr::from_ref(self).cast_mut().cast(),
        };
        // SAFETY: a live worker; the slot outlives its real sides.
        match unsafe { (real().worker_set_am_recv_handler)(real_worker, &raw const param) } {
            Status::OK => Ok(()),
            status => Err(status),
        }
    }

    fn set(&self, handler: Option<Handler>) {
        let mut owned = lock(&self.owned);
        let current = handler.map_or(ptr::null_mut(), |handler| {
            owned.push(Box::new(handler));
            owned.last().map_or(ptr::null_mut(), |handler| {
                ptr::from_ref::<Handler>(handler).cast_mut()
            })
        });
        self.handler.store(current, Ordering::Release);
    }

    fn worker(&self) -> &Worker {
        // SAFETY: a worker outlives its slots.
        unsafe { &*self.worker }
    }

    /// Delivers a message that is in our memory.
    ///
    /// # Safety
    /// On an application thread, inside the gate; called once for the arrival.
    pub unsafe fn deliver(&self, arrival: Arrival) {
        let worker = self.worker();
        let reply = arrival.reply.endpoint(worker);
        // SAFETY: endpoints live until the application closes them.
        let reply = reply.map(|endpoint| unsafe { &*endpoint });
        match arrival.data {
            // SAFETY: by the caller's promise.
            Data::Eager(bytes) => unsafe { self.eager(&arrival.header, bytes, reply) },
            Data::Rendezvous(held, length) => {
                // SAFETY: by the caller's promise.
                let status = unsafe { self.rendezvous(&arrival.header, held, length, reply) };
                if status != Status::INPROGRESS
                    && let Some(unwanted) = worker.descriptors.take_unwanted(held)
                {
                    // SAFETY: by the caller's promise.
                    unsafe { unwanted.release(worker.real()) };
                }
            }
        }
    }

    /// # Safety
    /// As [`Slot::deliver`].
    unsafe fn eager(&self, header: &[u8], bytes: Bytes, reply: Option<&Endpoint>) {
        let Some(handler) = self.handler() else {
            return self.report_dropped();
        };
        let mut message = Message {
            header,
            data: bytes.address(),
            length: bytes.len(),
            attr: 0,
            reply,
        };
        if !handler.persistent {
            // SAFETY: by the caller's promise.
            return self.check(unsafe { handler.call(&message) });
        }
        let descriptors = &self.worker().descriptors;
        let held = descriptors.hold_bytes(bytes);
        message.attr = am_recv_attr::DATA;
        // SAFETY: by the caller's promise.
        if unsafe { handler.call(&message) } != Status::INPROGRESS {
            // Neither kept nor, if it is still there, fetched.
            drop(descriptors.take_unwanted(held));
        }
    }

    /// # Safety
    /// As [`Slot::deliver`].
    unsafe fn rendezvous(
        &self,
        header: &[u8],
        held: Held,
        length: usize,
        reply: Option<&Endpoint>,
    ) -> Status {
        let Some(handler) = self.handler() else {
            self.report_dropped();
            return Status::INVALID_PARAM;
        };
        let message = Message {
            header,
            data: held.data,
            length,
            attr: am_recv_attr::RNDV,
            reply,
        };
        // SAFETY: by the caller's promise.
        unsafe { handler.call(&message) }
    }

    fn handler(&self) -> Option<&Handler> {
        // SAFETY: null, or owned by the slot until its worker ends.
        unsafe { self.handler.load(Ordering::Acquire).as_ref() }
    }

    /// What a handler may not say of data that it was told it cannot keep.
    fn check(&self, status: Status) {
        match status {
            Status::OK => {}
            Status::INPROGRESS => crate::log::error!(
                "the handler of active messages {} keeps data that was not offered for it",
                self.id
            ),
            status => crate::log::warning!("active message {} was dropped: {status}", self.id),
        }
    }

    fn report_dropped(&self) {
        crate::log::warning!("active message {} has no handler and was dropped", self.id);
    }
}

/// A message has arrived at a real worker of ours.
unsafe extern "C" fn on_message(
    arg: *mut c_void,
    header: *const c_void,
    header_length: usize,
    data: *mut c_void,
    length: usize,
    param: *const AmRecvParam,
) -> Status {
    // SAFETY: `arg` was given by `register`; a slot outlives its real workers.
    let slot = unsafe { &*arg.cast::<Slot>() };
    let worker = slot.worker();
    worker.traffic.count_received();
    let header: &[u8] = match header_length {
        0 => &[],
        // SAFETY: UCX passes so many bytes, valid until the callback returns.
        _ => unsafe { slice::from_raw_parts(header.cast(), header_length) },
    };
    let (header, trailer) = Trailer::part(header);
    let slot = match trailer {
        Some(trailer) if trailer.id >= WIDE => {
            // SAFETY: slots live as long as their worker.
            unsafe { &*worker.handlers.named(worker, trailer.id) }
        }
        Some(_) | None => slot,
    };
    // SAFETY: UCX passes valid parameters; the endpoint only if announced.
    let (attr, real_reply) = unsafe {
        match (*param).recv_attr {
            attr if attr & am_recv_attr::REPLY_EP != 0 => (attr, Some((*param).reply_ep)),
            attr => (attr, None),
        }
    };
    let is_rendezvous = attr & am_recv_attr::RNDV != 0;
    if crate::tls::is_helper() || !worker.deferred.is_empty() {
        let data = if is_rendezvous {
            Data::Rendezvous(worker.descriptors.hold_rendezvous(data, length), length)
        } else {
            // SAFETY: as the header.
            Data::Eager(unsafe { copy(data, length, worker.am_alignment()) })
        };
        worker.deferred.push_message(Arrival {
            slot,
            header: header.to_vec(),
            data,
            reply: Reply::note(worker, real_reply, trailer),
        });
        return if is_rendezvous {
            Status::INPROGRESS
        } else {
            Status::OK
        };
    }
    let reply = real_reply.map(|real_reply| reply::endpoint_over(worker, real_reply, trailer));
    // SAFETY: listed, and not closed before the handler does so.
    let reply = reply.map(|endpoint| unsafe { &*endpoint });
    // SAFETY: on an application thread inside the gate, or UCX would not call; the message is
    // UCX's until the callback returns.
    unsafe {
        if is_rendezvous {
            slot.rendezvous_now(header, data, length, reply)
        } else {
            slot.eager_now(header, data, length, reply);
            Status::OK
        }
    }
}

impl Slot {
    /// # Safety
    /// On an application thread, inside the gate; UCX's message, whole.
    #[inline(always)]
    unsafe fn eager_now(
        &self,
        header: &[u8],
        data: *mut c_void,
        length: usize,
        reply: Option<&Endpoint>,
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.handler() {
                Some(handler) if !handler.persistent => {
                    let attr = 0;
                    let message = Message {
                        header,
                        data,
                        length,
                        attr,
                        reply,
                    };
                    let status = handler.call(&message);
                    if status != Status::OK {
                        self.check(status);
                    }
                }
                Some(_) => {
                    let bytes = copy(data, length, self.worker().am_alignment());
                    self.eager(header, bytes, reply);
                }
                None => self.report_dropped(),
            }
        }
    }

    /// Says what UCX is to do with its descriptor.
    ///
    /// # Safety
    /// As [`Slot::eager_now`].
    unsafe fn rendezvous_now(
        &self,
        header: &[u8],
        real_descriptor: *mut c_void,
        length: usize,
        reply: Option<&Endpoint>,
    ) -> Status {
        let descriptors = &self.worker().descriptors;
        let held = descriptors.hold_rendezvous(real_descriptor, length);
        // SAFETY: by the caller's promise.
        match unsafe { self.rendezvous(header, held, length, reply) } {
            Status::INPROGRESS => Status::INPROGRESS,
            status => match descriptors.take_unwanted(held).map(|it| it.content) {
                // Not wanted: UCX tells the sender this status.
                Some(Content::Rendezvous(_)) => status,
                // The handler has begun to fetch it.
                Some(Content::Pulling | Content::Here(_)) | None => Status::OK,
            },
        }
    }
}

/// # Safety
/// `length` readable bytes, if any.
unsafe fn copy(data: *const c_void, length: usize, align: usize) -> Bytes {
    match length {
        0 => Bytes::copy(&[], align),
        // SAFETY: by the caller's promise.
        _ => Bytes::copy(unsafe { slice::from_raw_parts(data.cast(), length) }, align),
    }
}

//! Emptying the old side under the closed gate: every message that was sent here in the epoch
//! arrives, every operation of ours completes.
//!
//! Messages that match a posted receive complete it; the others are pulled into our own memory,
//! which also lets their sender's rendezvous complete. Nothing is pulled before the totals are
//! known: until then the switch may still be abandoned.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::time::{Duration, Instant};

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{RequestParam, TagRecvInfo};
use symvirt_ffi::ucs::{Status, StatusPtr};
use symvirt_protocol::rank::WorkerCount;

use super::side::plain_param;
use super::swap;
use crate::object::descriptor::Held;
use crate::object::drained::DrainedMessage;
use crate::object::message::{Body, Message};
use crate::object::worker::Worker;
use crate::real::real;

/// A drain that lasts longer is reported, again and again.
const REPORT: Duration = Duration::from_secs(10);
/// Longest sleep while the old side is being driven: the granularity of a stall.
pub const NAP: Duration = Duration::from_micros(20);
/// Fruitless looks at the old side before a nap.
pub const PATIENCE: u32 = 64;

/// What a drain has taken into our memory.
#[derive(Clone, Copy, Default)]
pub struct Taken {
    pub messages: u64,
    pub bytes: u64,
}

/// Empties the old side of every worker.
pub fn drain_all(totals: &[WorkerCount]) -> Taken {
    let mut drains = Vec::new();
    swap::each_worker(|worker| drains.push(Drain::new(worker, totals)));
    let mut reported = Instant::now();
    let mut idle = 0;
    while !drains.iter().all(Drain::is_done) {
        let mut happened = false;
        for drain in &mut drains {
            happened |= drain.step();
        }
        idle = if happened { 0 } else { idle + 1 };
        if idle > PATIENCE {
            std::thread::sleep(NAP);
        }
        if reported.elapsed() > REPORT {
            reported = Instant::now();
            for drain in drains.iter().filter(|drain| !drain.is_done()) {
                crate::log::warning!("still draining: {}", drain.describe());
            }
        }
    }
    drains
        .into_iter()
        .map(Drain::finish)
        .fold(Taken::default(), |all, one| Taken {
            messages: all.messages + one.messages,
            bytes: all.bytes + one.bytes,
        })
}

/// The drain of one worker.
struct Drain {
    worker: *const Worker,
    expected: u64,
    #[allow(
        clippy::vec_box,
        reason = "UCX holds the address of each pull while the list grows"
    )]
    pulls: Vec<Box<Pull>>,
    /// Nobody counts what is one-sided: a flush ends when all of it is done.
    flush: Flush,
}

/// A message on its way into our memory. Boxed: UCX holds its address.
struct Pull {
    info: TagRecvInfo,
    data: Vec<u8>,
    owner: Owner,
    status: Status,
    /// The real request while under way. Freeing it earlier would silence its callback.
    request: *mut c_void,
}

/// Who waits for a message that is being pulled.
enum Owner {
    /// Whoever receives it by tag: it joins the drained ones.
    Nobody,
    /// The application has probed it.
    Probed(*mut Message),
    /// A handler of active messages has been told of it, or will be.
    Told(Held),
}

impl Drain {
    /// Starts to drain a worker, which owes its application what `totals` says.
    pub fn new(worker: &Worker, totals: &[WorkerCount]) -> Drain {
        let total = totals.iter().find(|total| total.worker == worker.id);
        let expected = total.map_or(0, |total| total.count);
        let mut drain = Drain {
            worker,
            expected,
            pulls: Vec::new(),
            flush: Flush::start(worker),
        };
        for message in worker.messages.in_real_worker() {
            // SAFETY: handed out and not received; the gate is closed.
            let (info, body) = unsafe { ((*message).info, &(*message).body) };
            if let Body::Real(real_message) = *body {
                drain.pull_tagged(real_message, info, Owner::Probed(message));
            }
        }
        drain.pull_rendezvous();
        drain
    }

    fn worker(&self) -> &Worker {
        // SAFETY: workers are not destroyed during a round.
        unsafe { &*self.worker }
    }

    /// Drives the worker once; whether anything happened.
    pub fn step(&mut self) -> bool {
        let real_worker = self.worker().real();
        // SAFETY: the real worker in use, owned by this helper under the closed gate.
        let mut events = unsafe { (real().worker_progress)(real_worker) };
        events += self.pull_rendezvous();
        loop {
            let mut info = TagRecvInfo::default();
            // SAFETY: as above, and a place for the description.
            let found = unsafe { (real().tag_probe_nb)(real_worker, 0, 0, 1, &raw mut info) };
            if found.is_null() {
                return events > 0;
            }
            self.worker().traffic.count_probed();
            self.pull_tagged(found, info, Owner::Nobody);
            events += 1;
        }
    }

    fn pull_tagged(&mut self, message: *mut c_void, info: TagRecvInfo, owner: Owner) {
        let real_worker = self.worker().real();
        self.pull(info, owner, |buffer, param| {
            // SAFETY: buffer and parameters live until the completion; a message that a probe has
            // removed, received once.
            unsafe { (real().tag_msg_recv_nbx)(real_worker, buffer, info.length, message, param) }
        });
    }

    /// Pulls what came by rendezvous for handlers of active messages; returns how many.
    fn pull_rendezvous(&mut self) -> u32 {
        let waiting = self.worker().descriptors.begin_pulling();
        let count = waiting.len() as u32;
        for (held, real_descriptor, length) in waiting {
            self.pull_active(held, real_descriptor, length);
        }
        count
    }

    fn pull_active(&mut self, held: Held, real_descriptor: *mut c_void, length: usize) {
        let real_worker = self.worker().real();
        let info = TagRecvInfo {
            sender_tag: 0,
            length,
        };
        self.pull(info, Owner::Told(held), |buffer, param| {
            // SAFETY: as above; a descriptor that our callback has kept, fetched once.
            unsafe {
                (real().am_recv_data_nbx)(real_worker, real_descriptor, buffer, length, param)
            }
        });
    }

    /// Lets `start` receive into memory of ours.
    fn pull(
        &mut self,
        info: TagRecvInfo,
        owner: Owner,
        start: impl FnOnce(*mut c_void, *const RequestParam) -> StatusPtr,
    ) {
        let data = vec![0; info.length];
        let mut pull = Box::new(Pull {
            info,
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
        self.pulls.push(pull);
    }

    /// Whether the old side is empty.
    pub fn is_done(&self) -> bool {
        let traffic = &self.worker().traffic;
        traffic.arrived() >= self.expected
            && self.flush.is_done()
            && traffic.operations() == 0
            && self
                .pulls
                .iter()
                .all(|pull| pull.status != Status::INPROGRESS)
    }

    /// Where it stands, for a person.
    pub fn describe(&self) -> String {
        let traffic = &self.worker().traffic;
        format!(
            "worker {}: {} of {} messages arrived, {} operations and {} pulls under way",
            self.worker().id,
            traffic.arrived(),
            self.expected,
            traffic.operations(),
            self.pulls
                .iter()
                .filter(|pull| pull.status == Status::INPROGRESS)
                .count(),
        )
    }

    /// Puts what was pulled where the application will look for it.
    pub fn finish(self) -> Taken {
        let mut taken = Taken::default();
        let worker = self.worker();
        if worker.traffic.arrived() > self.expected {
            crate::log::error!("more messages arrived than were sent: {}", self.describe());
        }
        for pull in self.pulls {
            let Pull {
                info,
                data,
                owner,
                status,
                ..
            } = *pull;
            if status != Status::OK {
                crate::log::error!(
                    "a message of {} bytes was lost in the drain: {status}",
                    info.length
                );
            }
            taken.messages += 1;
            taken.bytes += data.len() as u64;
            // SAFETY: workers are not destroyed during a round.
            let worker = unsafe { &*self.worker };
            match owner {
                // SAFETY: still handed out: the gate has been closed since.
                Owner::Probed(message) => unsafe { (*message).body = Body::Drained(data) },
                Owner::Told(held) => worker.descriptors.fill(held, data),
                Owner::Nobody => worker.drained.push(DrainedMessage {
                    info,
                    data,
                    syncs: Vec::new(),
                }),
            }
        }
        taken
    }
}

/// The flush of a worker's one-sided operations.
struct Flush(Cell<*mut c_void>);

impl Flush {
    /// Flushes, if there can be anything.
    fn start(worker: &Worker) -> Flush {
        // SAFETY: a context outlives its workers.
        if !unsafe { &*worker.context }.is_one_sided() {
            return Flush(Cell::new(ptr::null_mut()));
        }
        let param = plain_param(0);
        // SAFETY: the real worker in use, owned by this helper under the closed gate.
        let result = unsafe { (real().worker_flush_nbx)(worker.real(), &raw const param) };
        let request = result.request().unwrap_or(ptr::null_mut());
        Flush(Cell::new(request))
    }

    /// A flush that fails has ended all the same: some transports cannot flush what only another
    /// layer could have left behind (osc/ucx over rxe says so of its own flushes, too).
    fn is_done(&self) -> bool {
        let request = self.0.get();
        if request.is_null() {
            return true;
        }
        // SAFETY: a live request of the real library.
        if unsafe { (real().request_check_status)(request) } == Status::INPROGRESS {
            return false;
        }
        // SAFETY: complete, and freed once.
        unsafe { (real().request_free)(request) };
        self.0.set(ptr::null_mut());
        true
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

//! Emptying the old side under the closed gate: every message that was sent here in the epoch
//! arrives, every operation of ours completes.
//!
//! ```text
//!   begin ──► load ──► expect ──────────────────────► fetch ──► everything is here
//!             (counters)  │ (totals)                    ▲
//!                         └► have_arrived ──► weigh ────┘ fits
//! ```
//!
//! Messages that match a posted receive complete it. The others are removed from the worker's own
//! list as they come, and join the drained ones; only `fetch` pulls them into our memory, which
//! also lets their sender's rendezvous complete. Until then the switch may be abandoned: dropping
//! the drain leaves every message where the next receive finds it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use symvirt_ffi::ucp::TagRecvInfo;
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::WorkerId;
use symvirt_protocol::rank::{Load, Stall, WorkerCount};

use super::pull::{Owner, Pull};
use super::side::plain_param;
use super::swap;
use crate::object::message::Body;
use crate::object::worker::Worker;
use crate::real::real;
use crate::spool::{self, SpoolError, Writer};

/// A drain that lasts longer is told of, again and again.
const REPORT: Duration = Duration::from_secs(1);
/// One that lasts longer is told to the user, too.
const LONG: Duration = Duration::from_secs(10);
/// Longest sleep while the old side is being driven: the granularity of a stall.
pub const NAP: Duration = Duration::from_micros(20);
/// Fruitless looks at the old side before a nap.
pub const PATIENCE: u32 = 64;

/// An application that drives a worker so often between two looks needs no help.
const STEADY: u64 = 8;

/// What a drain has taken into our memory.
#[derive(Clone, Copy, Default)]
pub struct Taken {
    pub messages: u64,
    pub bytes: u64,
}

impl Taken {
    /// Enters it into a report.
    pub fn note(self, stall: &mut Stall) {
        stall.drained_messages = self.messages;
        stall.drained_bytes = self.bytes;
        stall.spool_bytes = spool::used();
        stall.spool_peak = spool::peak();
    }
}

/// When a drain is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Everything that was sent here is here.
    Arrived,
    /// And every operation of ours is complete.
    Empty,
}

/// The drain of the whole process.
pub struct Drain {
    workers: Vec<WorkerDrain>,
    writer: Writer,
}

/// The drain of one worker.
struct WorkerDrain {
    worker: *const Worker,
    expected: u64,
    /// How often the application had driven it, the last time we looked.
    pulse: u64,
    /// So many of the drained messages have been looked at.
    fetched: usize,
    #[allow(
        clippy::vec_box,
        reason = "UCX holds the address of each pull while the list grows"
    )]
    pulls: Vec<Box<Pull>>,
    /// Nobody counts what is one-sided: a flush ends when all of it is done.
    flush: Flush,
}

impl Drain {
    /// Removes what has arrived; the gate is closed.
    pub fn begin() -> Drain {
        let mut workers = Vec::new();
        swap::each_worker(|worker| {
            workers.push(WorkerDrain {
                worker,
                expected: 0,
                pulse: 0,
                fetched: 0,
                pulls: Vec::new(),
                flush: Flush::default(),
            });
        });
        let drain = Drain {
            workers,
            writer: Writer::default(),
        };
        drain.progress();
        drain
    }

    /// What is known of the drain's size.
    pub fn load(&self) -> Load {
        let ours = || self.workers.iter();
        Load {
            sending: ours().map(|one| one.worker().traffic.sending()).sum(),
            waiting: ours()
                .flat_map(|one| one.unfetched())
                .map(|length| length as u64)
                .sum(),
            room: spool::room(),
        }
    }

    /// What the coordinator says was sent here.
    pub fn expect(&mut self, totals: &[WorkerCount]) {
        let totals: HashMap<WorkerId, u64> = totals
            .iter()
            .map(|total| (total.worker, total.count))
            .collect();
        for one in &mut self.workers {
            one.expected = totals.get(&one.worker().id).copied().unwrap_or(0);
        }
    }

    /// Drives the old side once, and removes what has arrived; whether anything happened.
    pub fn progress(&self) -> bool {
        self.workers
            .iter()
            .fold(false, |happened, one| one.progress() | happened)
    }

    /// Whether everything that was sent here has arrived, even if not fetched.
    pub fn have_arrived(&self) -> bool {
        self.workers.iter().all(WorkerDrain::has_arrived)
    }

    /// Drives the old side until everything has arrived, even if not fetched, but not for longer
    /// than `limit`; whether it has.
    pub fn arrives_within(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        while !self.have_arrived() {
            if begun.elapsed() > limit {
                return false;
            }
            self.progress();
        }
        true
    }

    /// The workers that the application has not driven since the last call are said to be
    /// neglected: whether there are any. Where threads share a worker, they leave to a helper to
    /// remove what arrives.
    pub fn is_neglected(&mut self) -> bool {
        let mut neglected = false;
        for one in &mut self.workers {
            let worker = one.worker();
            let pulse = worker.pulse.load(Ordering::Relaxed);
            neglected |= pulse - one.pulse < STEADY || worker.is_shared() && !one.has_arrived();
            one.pulse = pulse;
        }
        neglected
    }

    /// Makes room for all that has to be fetched.
    ///
    /// # Errors
    /// It does not fit; nothing is taken up.
    pub fn weigh(&mut self) -> Result<(), SpoolError> {
        let lengths: Vec<usize> = self
            .workers
            .iter()
            .flat_map(WorkerDrain::unfetched)
            .collect();
        self.writer.reserve(&lengths)
    }

    /// Where it stands under the closed gate, for a person.
    pub fn describe_closed(&self) -> String {
        format!("gate closed, {}", self.describe())
    }

    /// Where it stands, for a person.
    pub fn describe(&self) -> String {
        let open = self.workers.iter().filter(|one| !one.is_done(Until::Empty));
        let open = open.map(WorkerDrain::describe).collect::<Vec<_>>();
        format!("draining: {}", open.join("; "))
    }

    /// Empties the old side, as far as asked for; under the closed gate. From here on there is no
    /// way back. `tell` is called with where it stands every second that it takes.
    pub fn fetch(mut self, until: Until, tell: impl Fn(String)) -> Taken {
        for one in &mut self.workers {
            one.flush = Flush::start(one.worker());
            one.pull_probed(&mut self.writer);
        }
        let begun = Instant::now();
        let mut reported = begun;
        let mut warned = begun;
        let mut idle = 0;
        loop {
            let mut happened = false;
            for one in &mut self.workers {
                happened |= one.progress();
                happened |= one.pull_new(&mut self.writer);
            }
            if self.workers.iter().all(|one| one.is_done(until)) {
                break;
            }
            idle = if happened { 0 } else { idle + 1 };
            if idle > PATIENCE {
                std::thread::sleep(NAP);
            }
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                let stands = self.describe_closed();
                if warned.elapsed() > LONG {
                    warned = reported;
                    crate::log::warning!("{stands}");
                }
                tell(stands);
            }
        }
        self.workers
            .into_iter()
            .map(WorkerDrain::finish)
            .fold(Taken::default(), |all, one| Taken {
                messages: all.messages + one.messages,
                bytes: all.bytes + one.bytes,
            })
    }
}

impl WorkerDrain {
    fn worker(&self) -> &Worker {
        // SAFETY: workers are not destroyed during a round.
        unsafe { &*self.worker }
    }

    fn progress(&self) -> bool {
        let worker = self.worker();
        let real_worker = worker.real();
        // SAFETY: the real worker in use, owned by this helper under the closed gate.
        let happened = unsafe { (real().worker_progress)(real_worker) } > 0;
        // SAFETY: as above.
        unsafe { remove_arrived(worker) | happened }
    }

    fn has_arrived(&self) -> bool {
        self.worker().traffic.arrived() >= self.expected
    }

    /// Lengths of the messages whose bytes are to be fetched.
    fn unfetched(&self) -> Vec<usize> {
        let worker = self.worker();
        let (drained, _) = worker.drained.in_real_worker(0);
        let mut lengths = worker.descriptors.unfetched();
        lengths.extend(drained.iter().map(|(_, _, info)| info.length));
        for message in worker.messages.in_real_worker() {
            // SAFETY: handed out and not received; the gate is closed.
            lengths.push(unsafe { (*message).info.length });
        }
        lengths
    }

    /// Pulls what the application has probed and not received.
    fn pull_probed(&mut self, writer: &mut Writer) {
        // SAFETY: workers are not destroyed during a round.
        let worker = unsafe { &*self.worker };
        for message in worker.messages.in_real_worker() {
            // SAFETY: as above: removed by the probe, received once.
            unsafe {
                if let Body::Real(real_message) = (*message).body {
                    let data = writer.block((*message).info.length);
                    let owner = Owner::Probed(message);
                    self.pulls
                        .push(Pull::tagged(worker, real_message, data, owner));
                }
            }
        }
    }

    /// Pulls what has joined the drained messages, or come by rendezvous for handlers of active
    /// messages; whether there was any.
    fn pull_new(&mut self, writer: &mut Writer) -> bool {
        // SAFETY: workers are not destroyed during a round.
        let worker = unsafe { &*self.worker };
        let before = self.pulls.len();
        let (drained, end) = worker.drained.in_real_worker(self.fetched);
        self.fetched = end;
        for (position, real_message, info) in drained {
            let (data, owner) = (writer.block(info.length), Owner::Drained(position));
            // SAFETY: the gate is closed; removed by a probe of ours, and pulled once.
            let pull = unsafe { Pull::tagged(worker, real_message, data, owner) };
            self.pulls.push(pull);
        }
        for (held, descriptor, length) in worker.descriptors.begin_pulling() {
            let data = writer.block(length);
            // SAFETY: as above; kept by our callback.
            let pull = unsafe { Pull::active(worker, descriptor, data, held) };
            self.pulls.push(pull);
        }
        self.pulls.len() > before
    }

    /// Whether the old side is as empty as asked for.
    fn is_done(&self, until: Until) -> bool {
        let is_idle = || self.flush.is_done() && self.worker().traffic.operations() == 0;
        self.has_arrived()
            && self.pulls.iter().all(|pull| pull.is_done())
            && (until == Until::Arrived || is_idle())
    }

    fn describe(&self) -> String {
        let traffic = &self.worker().traffic;
        format!(
            "worker {}: {} of {} messages arrived, {} operations and {} pulls under way",
            self.worker().id,
            traffic.arrived(),
            self.expected,
            traffic.operations(),
            self.pulls.iter().filter(|pull| !pull.is_done()).count(),
        )
    }

    /// Puts what was pulled where the application will look for it.
    fn finish(self) -> Taken {
        if self.worker().traffic.arrived() > self.expected {
            crate::log::error!("more messages arrived than were sent: {}", self.describe());
        }
        // SAFETY: workers are not destroyed during a round.
        let worker = unsafe { &*self.worker };
        let lengths = self.pulls.into_iter().map(|pull| pull.finish(worker));
        lengths.fold(Taken::default(), |taken, length| Taken {
            messages: taken.messages + 1,
            bytes: taken.bytes + length,
        })
    }
}

/// Removes the messages that have arrived without a receive from the real worker's list; whether
/// there were any.
///
/// # Safety
/// The caller owns the real worker in use, and nobody looks for a message meanwhile.
pub unsafe fn remove_arrived(worker: &Worker) -> bool {
    let mut happened = false;
    loop {
        let mut info = TagRecvInfo::default();
        // SAFETY: by the caller's promise, and a place for the description.
        let found = unsafe { (real().tag_probe_nb)(worker.real(), 0, 0, 1, &raw mut info) };
        if found.is_null() {
            return happened;
        }
        worker.traffic.count_probed();
        worker.drained.push(info, found);
        happened = true;
    }
}

/// The flushes of a worker's one-sided operations: requests that are not complete.
///
/// That of the worker alone is not enough: where no operation is out that the peer has to answer,
/// UCX takes it for done, and does not look at what waits in an endpoint's queue behind other
/// messages (`ucp_worker_flush_check` in UCX's `rma/flush.c`). That of an endpoint queues behind
/// it. That of the worker counts for endpoints that the application has closed meanwhile.
#[derive(Default)]
struct Flush(RefCell<Vec<*mut c_void>>);

impl Flush {
    /// Flushes, if there can be anything.
    fn start(worker: &Worker) -> Flush {
        let mut requests = Vec::new();
        // SAFETY: a context outlives its workers.
        if unsafe { &*worker.context }.is_one_sided() {
            let param = plain_param(0);
            // Not flushed while the list is locked: an error may look into it.
            let mut accessed = Vec::new();
            worker.each_endpoint(|endpoint| {
                if endpoint.take_accesses() && !endpoint.is_asleep() {
                    accessed.push(endpoint.real());
                }
            });
            for endpoint in accessed {
                // SAFETY: a real endpoint in use, owned by this helper under the closed gate.
                let result = unsafe { (real().ep_flush_nbx)(endpoint, &raw const param) };
                requests.extend(result.request());
            }
            // SAFETY: the real worker in use, owned by this helper under the closed gate.
            let result = unsafe { (real().worker_flush_nbx)(worker.real(), &raw const param) };
            requests.extend(result.request());
        }
        Flush(RefCell::new(requests))
    }

    /// A flush that fails has ended all the same: some transports cannot flush what only another
    /// layer could have left behind (osc/ucx over rxe says so of its own flushes, too).
    fn is_done(&self) -> bool {
        let mut requests = self.0.borrow_mut();
        requests.retain(|&request| {
            // SAFETY: a live request of the real library.
            let status = unsafe { (real().request_check_status)(request) };
            if status != Status::INPROGRESS {
                // SAFETY: complete, and freed once.
                unsafe { (real().request_free)(request) };
            }
            status == Status::INPROGRESS
        });
        requests.is_empty()
    }
}

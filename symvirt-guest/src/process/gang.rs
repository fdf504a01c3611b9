//! Membership in the gang: identity, epoch, transports, how peers' objects are reached, and what
//! this process has sent in the epoch.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::{Epoch, ObjectId, ProcId, WorkerId};
use symvirt_protocol::matches::Matches;
use symvirt_protocol::query::Reach;
use symvirt_protocol::rank::{Blob, FromRank, SyncSend, WorkerCount};
use symvirt_protocol::transport::Transports;

use crate::address::Parsed;
use crate::channel::{self, Channel};
use crate::object::context::Context;
use crate::object::endpoint::Endpoint;
use crate::object::lock;
use crate::object::near;
use crate::switch::Helpers;

/// A context on the list: destroyed only after it was taken off.
#[derive(Clone, Copy)]
pub struct ContextPointer(pub *const Context);

// SAFETY: `Context` is Sync.
unsafe impl Send for ContextPointer {}

/// The process's membership.
pub struct State {
    member: AtomicBool,
    process: AtomicU64,
    epoch: AtomicU64,
    next_object: AtomicU32,
    pub contexts: Mutex<Vec<ContextPointer>>,
    transports: Mutex<Transports>,
    /// How peers' objects are reached, as far as this process had to know.
    table: Mutex<Option<HashMap<ObjectId, Vec<u8>>>>,
    /// How its own are, if it has been switched.
    own: Mutex<Vec<Blob>>,
    /// Sent in this epoch on endpoints that are closed.
    retired: Mutex<Option<HashMap<WorkerId, u64>>>,
    blockers: Mutex<BTreeSet<String>>,
    helpers: Mutex<Option<Helpers>>,
}

/// What this process has told of synchronous messages that it matched.
static CONFIRMED: Mutex<Matches> = Mutex::new(Matches::new());

/// See [`State`].
pub static STATE: State = State {
    member: AtomicBool::new(false),
    process: AtomicU64::new(0),
    epoch: AtomicU64::new(0),
    next_object: AtomicU32::new(0),
    contexts: Mutex::new(Vec::new()),
    transports: Mutex::new(Transports {
        tls: None,
        net_devices: None,
    }),
    table: Mutex::new(None),
    own: Mutex::new(Vec::new()),
    retired: Mutex::new(None),
    blockers: Mutex::new(BTreeSet::new()),
    helpers: Mutex::new(None),
};

/// How long the way to an object is asked for, where the coordinator has said that it cannot tell.
/// One that is away is waited for: a program may be late, but must not fail because of that.
const REACH_LIMIT: Duration = Duration::from_secs(60);
/// How often who waits for the coordinator says so.
const REACH_SAID: Duration = Duration::from_secs(60);
/// The agent asks the coordinator meanwhile: the first wait, and the longest.
const REACH_NAPS: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(20));
/// How long an exit waits for the switch under way.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// Whether there is a gang and this process belongs to it.
pub fn is_member() -> bool {
    STATE.member.load(Ordering::Acquire)
}

/// Joins the gang, if there is an agent and the process is not a member yet. Waits for the
/// agent's welcome, which tells the transports to start on.
pub fn join() -> bool {
    let mut helpers = lock(&STATE.helpers);
    if helpers.is_some() {
        return true;
    }
    if STATE.process.load(Ordering::Relaxed) == 0 {
        match getrandom::u64() {
            Ok(random) => STATE.process.store(random | 1, Ordering::Relaxed),
            Err(error) => {
                crate::log::warning!("no randomness for an identity, not joining: {error}");
                return false;
            }
        }
    }
    match crate::switch::start() {
        Ok(started) => {
            *helpers = Some(started);
            STATE.member.store(true, Ordering::Release);
            true
        }
        Err(reason) => {
            crate::log::debug!("no gang, everything passes through: {reason}");
            false
        }
    }
}

/// Leaves the gang; the epoch and what was sent are told to the others.
pub fn leave() {
    let helpers = lock(&STATE.helpers).take();
    let was_member = STATE.member.swap(false, Ordering::AcqRel);
    if let Some(helpers) = helpers {
        if !was_member {
            // The child of a fork: the threads, and the right to speak on the socket, are its
            // parent's.
            std::mem::forget(helpers);
            return;
        }
        helpers.leave(FromRank::Leave { sent: sent() });
    }
    lock(&STATE.retired).take();
    lock(&STATE.table).take();
}

/// The process exits with UCX objects alive. A round that does not end in time is left to itself:
/// the agent will notice that the process is gone.
pub fn leave_at_exit() {
    if !is_member() {
        return;
    }
    match super::round::change_within("the process exits", EXIT_LIMIT) {
        Some(_change) => leave(),
        None => crate::log::warning!("the process exits in the middle of a switch"),
    }
}

/// See `life::install_fork_handler`: stores to atomics only.
pub fn forget_after_fork() {
    STATE.member.store(false, Ordering::Release);
}

/// The process's identity.
pub fn process() -> ProcId {
    ProcId(STATE.process.load(Ordering::Relaxed))
}

/// The epoch this process is in.
pub fn epoch() -> Epoch {
    Epoch(STATE.epoch.load(Ordering::Acquire))
}

/// The transports of the epoch.
pub fn transports() -> Transports {
    lock(&STATE.transports).clone()
}

/// An identity for a new object.
pub fn next_object() -> ObjectId {
    ObjectId {
        process: process(),
        index: STATE.next_object.fetch_add(1, Ordering::Relaxed),
    }
}

/// Begins an epoch: under the closed gate, or at the welcome.
pub fn begin_epoch(epoch: Epoch, transports: Transports, table: &[Blob], own: Vec<Blob>) {
    near::begin_epoch(&transports);
    *lock(&STATE.transports) = transports;
    let blobs = table
        .iter()
        .map(|blob| (blob.object, blob.bytes.clone()))
        .collect();
    *lock(&STATE.table) = Some(blobs);
    *lock(&STATE.own) = own;
    lock(&STATE.retired).take();
    STATE.epoch.store(epoch.0, Ordering::Release);
}

/// How this process's objects are reached, if it has been switched.
pub fn own_blobs() -> Vec<Blob> {
    lock(&STATE.own).clone()
}

/// How an object is reached now: what leads to it may have been packed before a switch. Inside the
/// gate.
///
/// # Errors
/// [`Status::TIMED_OUT`] if nobody can tell.
pub fn current(parsed: &Parsed<'_>) -> Result<Vec<u8>, Status> {
    if parsed.epoch >= epoch() || !is_member() {
        return Ok(parsed.bytes.to_vec());
    }
    let moved = reach(parsed.object)?;
    Ok(moved.unwrap_or_else(|| parsed.bytes.to_vec()))
}

/// How a peer's object is reached in this epoch, `None` if it is no more. Inside the gate: the epoch
/// lasts meanwhile. Who had no use for the object when the switch was prepared was not told, and
/// asks the agent; that takes a fraction of a millisecond, and some more where the agent has to ask
/// the coordinator.
///
/// # Errors
/// [`Status::TIMED_OUT`] if nobody can tell.
pub fn reach(object: ObjectId) -> Result<Option<Vec<u8>>, Status> {
    let known = lock(&STATE.table)
        .as_ref()
        .and_then(|table| table.get(&object).cloned());
    if known.is_some() {
        return Ok(known);
    }
    let mut deadline = None;
    let mut said = Instant::now();
    let mut nap = REACH_NAPS.0;
    loop {
        match channel::reach(object, epoch()) {
            Some(Reach::By(bytes)) => {
                let mut table = lock(&STATE.table);
                table.get_or_insert_default().insert(object, bytes.clone());
                return Ok(Some(bytes));
            }
            Some(Reach::Gone) => return Ok(None),
            Some(Reach::Unknown) => {
                let limit = *deadline.get_or_insert_with(|| Instant::now() + REACH_LIMIT);
                if Instant::now() > limit {
                    crate::log::warning!("nobody can tell how {object} is reached");
                    return Err(Status::TIMED_OUT);
                }
            }
            Some(Reach::Unheard) | None => {
                if said.elapsed() > REACH_SAID {
                    said = Instant::now();
                    crate::log::warning!(
                        "how {object} is reached only the coordinator can tell, which is away: this \
                         process waits for it"
                    );
                }
            }
        }
        std::thread::sleep(nap);
        nap = REACH_NAPS.1.min(nap * 2);
    }
}

/// Keeps the count of an endpoint that is being closed.
pub fn retire(endpoint: &Endpoint) {
    let sent = endpoint.sent.swap(0, Ordering::Relaxed);
    if let (Some(peer), true) = (endpoint.peer(), sent > 0) {
        *lock(&STATE.retired)
            .get_or_insert_default()
            .entry(peer)
            .or_default() += sent;
    }
}

/// Messages sent in this epoch, per receiving worker.
pub fn sent() -> Vec<WorkerCount> {
    let mut totals = lock(&STATE.retired).clone().unwrap_or_default();
    for context in lock(&STATE.contexts).iter() {
        // SAFETY: listed contexts, and their listed workers, are live.
        let context = unsafe { &*context.0 };
        for &worker in lock(&context.workers).iter() {
            // SAFETY: as above.
            unsafe { &*worker }.each_endpoint(|endpoint| {
                if let Some(peer) = endpoint.peer() {
                    *totals.entry(peer).or_default() += endpoint.sent.load(Ordering::Relaxed);
                }
            });
        }
    }
    let counts = totals.into_iter().filter(|&(_, count)| count > 0);
    counts
        .map(|(worker, count)| WorkerCount { worker, count })
        .collect()
}

/// Whether any worker has issued atomics in this epoch.
pub fn has_atomics() -> bool {
    lock(&STATE.contexts).iter().any(|context| {
        // SAFETY: listed contexts, and their listed workers, are live.
        let workers = lock(unsafe { &(*context.0).workers });
        // SAFETY: as above.
        workers
            .iter()
            .any(|&worker| unsafe { (*worker).traffic.has_atomics() })
    })
}

/// Tells senders that their synchronous messages, which a drain took, are matched now.
pub fn confirm(syncs: Vec<SyncSend>) {
    if syncs.is_empty() {
        return;
    }
    lock(&CONFIRMED).remember(&syncs);
    if let Some(channel) = channel() {
        channel.send(&FromRank::Matched { syncs });
    }
}

/// What was told of matches last, for an agent that has not heard it.
pub fn confirmed() -> Vec<SyncSend> {
    lock(&CONFIRMED).all()
}

/// From now on this process vetoes every switch, with this reason.
pub fn block(reason: String) {
    if lock(&STATE.blockers).insert(reason.clone()) {
        crate::log::info!("this process cannot change its interconnect: {reason}");
        super::round::spoil(&reason);
    }
}

/// Why this process cannot switch, if so.
pub fn blocker() -> Option<String> {
    let blockers = lock(&STATE.blockers);
    let reasons: Vec<&str> = blockers.iter().map(String::as_str).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// The channel to the agent, while a member.
pub fn channel() -> Option<Arc<Channel>> {
    if !is_member() {
        return None;
    }
    lock(&STATE.helpers).as_ref().map(Helpers::channel)
}

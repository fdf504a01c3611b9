//! Membership in the gang: identity, epoch, transports, how peers' objects are reached, and what
//! this process has sent in the epoch.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use symvirt_protocol::ids::{Epoch, ObjectId, ProcId, WorkerId};
use symvirt_protocol::rank::{Blob, FromRank, SyncSend, WorkerCount};
use symvirt_protocol::transport::Transports;

use crate::address::Parsed;
use crate::channel::Channel;
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
    table: Mutex<Option<HashMap<ObjectId, Vec<u8>>>>,
    /// Sent in this epoch on endpoints that are closed.
    retired: Mutex<Option<HashMap<WorkerId, u64>>>,
    blockers: Mutex<BTreeSet<String>>,
    helpers: Mutex<Option<Helpers>>,
}

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
    retired: Mutex::new(None),
    blockers: Mutex::new(BTreeSet::new()),
    helpers: Mutex::new(None),
};

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
pub fn begin_epoch(epoch: Epoch, transports: Transports, table: &[Blob]) {
    near::begin_epoch(&transports);
    *lock(&STATE.transports) = transports;
    let blobs = table
        .iter()
        .map(|blob| (blob.object, blob.bytes.clone()))
        .collect();
    *lock(&STATE.table) = Some(blobs);
    lock(&STATE.retired).take();
    STATE.epoch.store(epoch.0, Ordering::Release);
}

/// How an object is reached now: what leads to it may have been packed before a switch.
pub fn current(parsed: &Parsed<'_>) -> Vec<u8> {
    let moved = lock(&STATE.table)
        .as_ref()
        .and_then(|table| table.get(&parsed.object).cloned());
    match moved {
        Some(bytes) if parsed.epoch < epoch() => bytes,
        Some(_) | None => parsed.bytes.to_vec(),
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
    if let Some(channel) = channel() {
        channel.send(&FromRank::Matched { syncs });
    }
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

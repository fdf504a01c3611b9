//! Sends first: where more is in flight than a moment can drain, only the sends of a rank change
//! over at once. The application then runs on both sides while the old one empties; its receives
//! follow when everything of the closing epoch is here.
//!
//! ```text
//!            gate       endpoints    receives, probes     progressed by
//!   counters closed     old          old                  controller
//!      │ totals known: nothing can be undone any more
//!      ├── all arrives within SECOND_CLOSING, or flipping is not right ──┐
//!      ▼ flip                                                            │
//!   flipped  open       new          old                  application: both; controller: old,
//!      │                                                  where the application does not
//!      ▼ everything sent here in the closing epoch has arrived           │
//!   swap     closed     new          old ─► new           controller ◄───┘
//!      │ unexpected messages are pulled, receives posted again
//!      ▼
//!   swapped  open       new          new                  application: new; controller: old
//!      │ own operations on the old side are complete
//!      ▼
//!   Drained ─► Release
//! ```
//!
//! Order of messages: an endpoint's messages of the closing epoch go over the old side, all later
//! ones over the new side, where nobody looks before the swap. At the swap every message of the
//! closing epoch has been received or is among the drained ones, which every receive and probe
//! looks through first. So no message overtakes one of its sender.
//!
//! Between flip and swap, for each kind of call:
//!
//! | call | does |
//! |---|---|
//! | send, synchronous send | goes over the new side and counts for the new epoch; a synchronous one that is announced to the drain stays in doubt, a new one does not |
//! | receive, probe, receive of a probed message | the drained messages first, then the old side |
//! | cancel | of a receive as ever; a send of the old side cannot be cancelled any more |
//! | progress | both sides, and what arrives on the old one without a receive joins the drained messages ([`progress`]) |
//! | flush, fence | wait until the swap, then as ever ([`enter_when_over`]) |
//! | new endpoints, the worker's address | are of the new side and epoch |
//! | close of an endpoint | of the new side; what was sent over the old one arrives, because the worker cannot be destroyed before the round has ended |
//! | registering memory | as ever, and again at the swap |
//! | making or destroying workers and contexts | wait for the end of the round, as in every round |
//! | one-sided access, atomics, active messages | there are none: [`is_right`] |
//!
//! The old side empties also if the application never calls UCX: the controller drives it, under
//! the gate, and opens as soon as somebody waits there. Sends that wait for a receive which the
//! application posts only later hold nobody up: the receiver pulls them at its swap, for which
//! its own sends need not be complete.
//!
//! It does not know the coordinator: counters are published before the flip, `Drained` is said
//! after the swap.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::{FromRank, Stall, SyncSend, ToRank};

use super::controller::{CLOSE_LIMIT, Decision, UNTOLD, microseconds};
use super::drain::{self, Drain, NAP, PATIENCE, Until};
use super::matching::{attach_syncs, deliver_matched};
use super::side::Side;
use super::{Shared, swap};
use crate::gate::GATE;
use crate::object::lock;
use crate::object::worker::{Inside, Worker};
use crate::process::gang;
use crate::real::real;
use crate::tls::{self, Mode};

/// What a second closing of the gate costs an application: worth waiting for under the first.
const SECOND_CLOSING: Duration = Duration::from_micros(50);
/// Longest time between two looks at a side that nobody drives.
const LONGEST_NAP: Duration = Duration::from_micros(200);
/// How often a call looks whether the swap is done.
const LOOK: Duration = Duration::from_micros(50);

/// Since when a call has been waiting for the swap, the first of them.
static WAITING: Mutex<Option<Instant>> = Mutex::new(None);

/// Whether sends may change over first: the one rule. What is one-sided reaches memory without
/// being counted, and that of two epochs must not meet; active messages run handlers as they come,
/// so that those of the new epoch cannot be left waiting. A process that could have either
/// drains with its gate closed. Each decides for itself: peers see no difference but in time.
pub fn is_right(decision: &Decision) -> bool {
    let contexts = lock(&gang::STATE.contexts);
    // SAFETY: listed contexts are live.
    let mut ours = contexts.iter().map(|context| unsafe { &*context.0 });
    !decision.barrier && !decision.weighed && ours.all(|context| context.is_for_tags_only())
}

/// Drives a worker for the application: what its progress comes to when it takes the long way.
///
/// # Safety
/// Inside the gate.
pub unsafe fn progress(worker: &Worker) -> u32 {
    // SAFETY: the real workers in use, inside the gate. Of a worker that is not shared the calling
    // thread is the only one to look for messages.
    unsafe {
        let events = (real().worker_progress)(worker.real());
        let ahead = worker.ahead();
        if ahead.is_null() {
            return events;
        }
        worker.pulse.fetch_add(1, Ordering::Relaxed);
        if !worker.is_shared() {
            drain::remove_arrived(worker);
        }
        events + (real().worker_progress)(ahead)
    }
}

/// Passes the gate for a call that concerns both sides: it waits until there is one. In a callback
/// it cannot wait, and concerns the new one.
pub fn enter_when_over(worker: &Worker) -> Inside<'_> {
    let may_wait = tls::mode().get() != Mode::Inside;
    loop {
        let inside = worker.enter();
        if worker.ahead().is_null() || !may_wait {
            return inside;
        }
        // Before it leaves: the swap, which asks, has not begun.
        lock(&WAITING).get_or_insert_with(Instant::now);
        drop(inside);
        std::thread::sleep(LOOK);
    }
}

/// What a rank has after a change-over.
pub struct ChangedOver {
    /// To be driven until it is idle here, and empty everywhere.
    pub old: Side,
    pub stall: Stall,
    /// Synchronous sends of others that were matched.
    pub proved: Vec<SyncSend>,
}

/// Changes over to `side`, the sends first if all has not arrived in a moment. The gate, closed
/// since `start`, is open when this returns.
pub(super) fn change_over(
    shared: &Shared,
    mut side: Side,
    mut drain: Drain,
    decision: Decision,
    mut stall: Stall,
    start: Instant,
) -> ChangedOver {
    let epoch = side.epoch;
    // Since when the gate has been closed, and for how long the application stood still before.
    let (mut closed, mut before) = (start, Duration::ZERO);
    if !drain.arrives_within(SECOND_CLOSING) {
        swap::lead_sends(&mut side);
        GATE.open();
        before = start.elapsed();
        before += empty(shared, epoch, &mut drain);
        closed = Instant::now();
        let both = (closed - start).saturating_sub(before);
        crate::log::debug!("on both sides for {both:?}, stood still for {before:?} until then");
        close(shared, epoch);
        before += lock(&WAITING)
            .take()
            .map_or(Duration::ZERO, |since| closed - since);
        stall.gate_us += microseconds(closed.elapsed());
        if let Err(error) = side.catch_up() {
            crate::log::error!("what was registered during a switch is lost: {error}");
        }
    }
    let taken = drain.fetch(Until::Arrived, |at| {
        shared.send(&FromRank::Stands { epoch, at });
    });
    let proved = attach_syncs(&decision.syncs);
    let drained = before + closed.elapsed();
    swap::take_back_receives();
    let old = swap::detach(epoch);
    swap::attach(side);
    GATE.open();
    stall.total_us = microseconds(before + closed.elapsed());
    stall.repost_us = stall.total_us.saturating_sub(microseconds(drained));
    let accounted = stall.gate_us + stall.counters_us + stall.repost_us;
    stall.drain_us = stall.total_us.saturating_sub(accounted);
    taken.note(&mut stall);
    ChangedOver { old, stall, proved }
}

/// Lets the application run until everything that was sent here in the closing epoch has arrived.
/// The gate is open. Returns for how long anybody waited at it meanwhile, at most.
fn empty(shared: &Shared, epoch: Epoch, drain: &mut Drain) -> Duration {
    let mut kept_out = Duration::ZERO;
    let mut told = Instant::now();
    let mut nap = NAP;
    while !drain.have_arrived() {
        nap = if drain.is_neglected() {
            let (happened, kept) = drive(drain);
            kept_out += kept;
            if !kept.is_zero() {
                // Whoever waited is to get along now.
                LONGEST_NAP
            } else if happened {
                Duration::ZERO
            } else {
                LONGEST_NAP.min(nap.max(NAP) * 2)
            }
        } else {
            NAP
        };
        if told.elapsed() > UNTOLD {
            told = Instant::now();
            let at = format!("sends are on the new side; {}", drain.describe());
            shared.send(&FromRank::Stands { epoch, at });
        }
        match shared.channel().receive(nap) {
            Ok(Some(ToRank::Matched { ids })) => deliver_matched(&ids),
            Ok(Some(_) | None) => {}
            // Nobody is to be told any more; the old side empties all the same.
            Err(_) => std::thread::sleep(nap),
        }
    }
    kept_out
}

/// Closes the gate, whatever it takes: nothing can be undone.
fn close(shared: &Shared, epoch: Epoch) {
    while let Err(error) = GATE.close(CLOSE_LIMIT) {
        crate::log::warning!("{error}");
        let at = error.to_string();
        shared.send(&FromRank::Stands { epoch, at });
    }
}

/// Drives the old side in the application's place, until nothing happens, or somebody waits at
/// the gate. Returns whether anything happened, and for how long somebody was kept out at most.
fn drive(drain: &Drain) -> (bool, Duration) {
    let mut alone = Instant::now();
    if GATE.close(CLOSE_LIMIT).is_err() {
        // Whoever is inside drives it, or will leave.
        return (false, alone.elapsed());
    }
    let (mut happened, mut idle) = (false, 0);
    while !GATE.is_awaited() && idle < PATIENCE && !drain.have_arrived() {
        alone = Instant::now();
        if drain.progress() {
            (happened, idle) = (true, 0);
        } else {
            idle += 1;
        }
    }
    let kept_out = if GATE.is_awaited() {
        alone.elapsed()
    } else {
        Duration::ZERO
    };
    GATE.open();
    (happened, kept_out)
}

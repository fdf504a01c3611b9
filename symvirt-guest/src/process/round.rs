//! The switch under way, as the application's threads must respect it.
//!
//! ```text
//!            begin (Prepare, or Commit of break-before-make)
//!   Idle ────────────────────────────────► Running ── end ──► Idle
//!                                            │ change(): an application thread creates or
//!                                            ▼           destroys a context or worker
//!                                          Spoiled  (vetoed; the change waits for the end)
//! ```
//! A change and a round exclude each other: a round does not begin during a change, a change
//! vetoes a round that can still be abandoned and waits for its end.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::FromRank;

use super::{gang, holds};
use crate::object::lock;
use crate::object::memory::Memory;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Running(Epoch),
    Spoiled(Epoch),
}

/// Memory that the application has released while a side being built may still name it.
struct Released(#[allow(dead_code, reason = "kept, not used")] Box<Memory>);

// SAFETY: nobody but the round holds it any more.
unsafe impl Send for Released {}

struct Round {
    phase: Phase,
    released: Vec<Released>,
    changes: u32,
    changing: &'static str,
}

static ROUND: Mutex<Round> = Mutex::new(Round {
    phase: Phase::Idle,
    released: Vec::new(),
    changes: 0,
    changing: "",
});
static ENDED: Condvar = Condvar::new();

/// A change is logged as slow after each such time; it never gives up, because the coordinator
/// ends every round.
const PATIENCE: Duration = Duration::from_secs(30);

/// A creation or destruction under way; dropping it ends it.
pub struct Change(());

/// Waits until no round runs, and keeps one from beginning until the change is dropped.
pub fn change(what: &'static str) -> Change {
    loop {
        if let Some(change) = change_within(what, PATIENCE) {
            return change;
        }
        crate::log::warning!("{what}: waiting for the switch under way to end");
    }
}

/// As [`change`]; `None` if a round still runs after `limit`.
pub fn change_within(what: &'static str, limit: Duration) -> Option<Change> {
    let deadline = Instant::now() + limit;
    let mut round = lock(&ROUND);
    while round.phase != Phase::Idle && gang::is_member() {
        if matches!(round.phase, Phase::Running(_)) {
            drop(round);
            spoil(what);
            round = lock(&ROUND);
            continue;
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        let waited = ENDED.wait_timeout(round, left);
        round = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    round.changes += 1;
    round.changing = what;
    Some(Change(()))
}

impl Drop for Change {
    fn drop(&mut self) {
        lock(&ROUND).changes -= 1;
    }
}

/// Abandons a round that has not committed, without waiting for its end.
pub fn spoil(reason: &str) {
    let mut round = lock(&ROUND);
    let Phase::Running(epoch) = round.phase else {
        return;
    };
    round.phase = Phase::Spoiled(epoch);
    drop(round);
    if let Some(channel) = gang::channel() {
        channel.send(&FromRank::Veto {
            epoch,
            reason: reason.to_owned(),
        });
    }
}

/// Begins a round.
///
/// # Errors
/// The reason for a veto: a change is under way, or the process cannot switch at all.
pub fn begin(epoch: Epoch) -> Result<(), String> {
    if let Some(reason) = gang::blocker() {
        return Err(reason);
    }
    let mut round = lock(&ROUND);
    if round.changes > 0 {
        return Err(round.changing.to_owned());
    }
    round.phase = Phase::Running(epoch);
    Ok(())
}

/// Whether the round may still commit: no change spoiled it.
pub fn is_sound(epoch: Epoch) -> bool {
    lock(&ROUND).phase == Phase::Running(epoch)
}

/// Whether there is one.
pub fn is_under_way() -> bool {
    lock(&ROUND).phase != Phase::Idle
}

/// Ends the round; waiting changes go on.
pub fn end() {
    let mut round = lock(&ROUND);
    round.phase = Phase::Idle;
    let released = std::mem::take(&mut round.released);
    drop(round);
    holds::open();
    ENDED.notify_all();
    drop(released);
}

/// Frees memory that is registered nowhere any more: when the round that runs, if one does, has
/// ended.
pub fn keep_until_end(memory: Box<Memory>) {
    let mut round = lock(&ROUND);
    if round.phase != Phase::Idle {
        round.released.push(Released(memory));
    }
}

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
use std::time::Duration;

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::FromRank;

use super::gang;
use crate::object::lock;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Running(Epoch),
    Spoiled(Epoch),
}

struct Round {
    phase: Phase,
    changes: u32,
    changing: &'static str,
}

static ROUND: Mutex<Round> = Mutex::new(Round {
    phase: Phase::Idle,
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
    let mut round = lock(&ROUND);
    while round.phase != Phase::Idle && gang::is_member() {
        if matches!(round.phase, Phase::Running(_)) {
            drop(round);
            spoil(what);
            round = lock(&ROUND);
            continue;
        }
        let (next, waited) = ENDED
            .wait_timeout(round, PATIENCE)
            .unwrap_or_else(PoisonError::into_inner);
        round = next;
        if waited.timed_out() {
            crate::log::warning!("{what}: waiting for the switch under way to end");
        }
    }
    round.changes += 1;
    round.changing = what;
    Change(())
}

impl Drop for Change {
    fn drop(&mut self) {
        lock(&ROUND).changes -= 1;
    }
}

/// Abandons a round that has not committed, without waiting for its end.
fn spoil(reason: &'static str) {
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

/// Ends the round; waiting changes go on.
pub fn end() {
    lock(&ROUND).phase = Phase::Idle;
    ENDED.notify_all();
}

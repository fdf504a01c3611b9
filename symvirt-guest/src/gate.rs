//! The gate: application threads pass it on every call into UCP; a switch closes it for a
//! moment, so that nobody is inside UCX while the real side changes.
//!
//! ```text
//!   application thread              closer
//!   mode := Inside                  closed := 1
//!   (compiler barrier)              membarrier: every other thread passes a full barrier
//!   closed? ── yes: mode := Idle,   every mode ≠ Inside? ── no: wait for a leaver
//!      │            wait, again        │
//!      no: call UCX, mode := Idle      yes: the real side may change
//! ```
//!
//! A pass costs a store, a compiler barrier and a load; the closer pays for the ordering
//! (`membarrier(2)`, `MEMBARRIER_CMD_PRIVATE_EXPEDITED`). Waits are futexes. The model in
//! `gate/model.rs` checks the protocol under every interleaving (loom).

mod futex;
#[cfg(all(test, loom))]
mod model;
#[cfg(not(loom))]
mod passage;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(loom)]
use loom::sync::atomic::{Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{Ordering, fence};

use futex::Futex;
#[cfg(not(loom))]
pub use passage::{GATE, Passage, enter, enter_at_once};

use crate::barrier;
use crate::tls::{Mode, ModeCell};

/// See the module; the process has one, [`GATE`].
pub struct Gate {
    /// 1 while closed: entering threads wait on it.
    closed: Futex,
    /// Counts leavers that found the gate closed: the closer waits on it.
    left: Futex,
    /// How many threads wait at the closed gate.
    waiting: Futex,
    /// The modes of all threads that ever entered and have not ended.
    threads: Mutex<Vec<&'static ModeCell>>,
}

/// The gate could not be closed: an application thread stayed inside UCX.
#[derive(Debug, thiserror::Error)]
#[error("an application thread stayed inside UCX for {waited:?}")]
pub struct StillInside {
    waited: Duration,
}

impl Gate {
    #[cfg(not(loom))]
    const fn new() -> Gate {
        Gate {
            closed: Futex::new(0),
            left: Futex::new(0),
            waiting: Futex::new(0),
            threads: Mutex::new(Vec::new()),
        }
    }

    /// Marks the thread inside, unless the gate is closed: then the caller must go on to
    /// [`Gate::wait_until_open`], which tells the closer.
    #[inline(always)]
    fn try_enter(&self, mode: &ModeCell) -> bool {
        mode.set(Mode::Inside);
        barrier::light();
        if self.closed.get() == 0 {
            return true;
        }
        mode.set(Mode::Idle);
        false
    }

    #[inline(always)]
    fn leave(&self, mode: &ModeCell) {
        barrier::light();
        mode.set(Mode::Idle);
        barrier::light();
        if self.closed.get() != 0 {
            self.tell_closer();
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_closer(&self) {
        self.left.add_one();
        self.left.wake_all();
    }

    /// Waits at the gate, outside.
    #[cold]
    fn wait_until_open(&self) {
        barrier::light();
        self.waiting.add_one();
        self.tell_closer();
        self.closed.wait_while(1, None);
        self.waiting.subtract_one();
    }

    /// Whether an application thread is kept out at this moment.
    #[cfg(not(loom))]
    pub fn is_awaited(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Makes the closer look at this thread from now on; its mode becomes Idle.
    pub fn register(&self, mode: &'static ModeCell) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        mode.set(Mode::Idle);
        threads.push(mode);
    }

    /// Forgets a thread that ends.
    pub fn unregister(&self, mode: &'static ModeCell) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|known| !std::ptr::eq(*known, mode));
        mode.set(Mode::New);
        drop(threads);
        self.tell_closer();
    }

    /// Closes the gate and waits until no application thread is inside UCX.
    ///
    /// # Errors
    /// [`StillInside`] after `limit`; the gate is open again.
    pub fn close(&self, limit: Duration) -> Result<(), StillInside> {
        let start = Instant::now();
        self.closed.set(1);
        barrier::heavy();
        loop {
            let seen = self.left.get();
            if self.is_empty() {
                return Ok(());
            }
            let waited = start.elapsed();
            if waited >= limit {
                self.open();
                return Err(StillInside { waited });
            }
            self.left.wait_while(seen, Some(limit - waited));
        }
    }

    fn is_empty(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = threads.iter().all(|mode| mode.get() != Mode::Inside);
        // What leavers wrote before they left is visible from here on.
        fence(Ordering::SeqCst);
        empty
    }

    /// Opens the gate and wakes whoever waits at it.
    pub fn open(&self) {
        self.closed.set(0);
        self.closed.wake_all();
    }

    /// In the child of a fork: only the calling thread exists, and no switch runs.
    pub fn reset_after_fork(&self) {
        self.closed.set(0);
    }
}

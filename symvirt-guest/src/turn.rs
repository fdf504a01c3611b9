//! Whose turn it is with a worker that several application threads share.
//!
//! UCX locks such a worker in each of its calls (`UCS_THREAD_MODE_MULTI`). Ours is locked around
//! UCX's call and what we do before and after it, so UCX need not lock again: its own worker is
//! made for threads that take turns (`UCS_THREAD_MODE_SERIALIZED`), and nothing of ours that
//! belongs to a worker needs a lock or an atomic addition. Whoever has the turn may come back in
//! its callbacks.
//!
//! Most workers that may be shared are used by one thread all the same. So the first thread takes
//! its turns by plain stores until a second one comes and ends that, once and for good (a biased
//! lock; the barriers are those of the gate). From then on a turn costs one compare-and-exchange a
//! call, as in UCX.
//!
//! ```text
//!   the first thread                  the second, once
//!   present := me                     owner: 0 → second
//!   (compiler barrier)                first := NONE
//!   first = me? ── no: present := 0,  membarrier: the first passes a full barrier
//!      │             owner: 0 → me    present ≠ 0? ── yes: waits for the end of that turn
//!     yes: its turn, present := 0        no: its turn, owner := 0
//! ```
//!
//! No helper takes turns: it comes when nobody is inside the gate. Whoever waits yields the
//! processor, as the one it waits for may need it; UCX's lock would spin.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::barrier;

/// Looks before the processor is yielded: longer than most calls take.
const SPINS: u32 = 100;

/// There is no first thread any more.
const NONE: usize = usize::MAX;

/// See the module. Threads have names, which are neither 0 nor the largest number.
pub struct Turns {
    /// The only thread so far; 0 before it comes, [`NONE`] when there has been another.
    first: AtomicUsize,
    /// The first thread while it has the turn as such, or else 0. Only that thread writes it.
    present: AtomicUsize,
    /// The thread that has the turn among several, or else 0.
    owner: AtomicUsize,
}

/// A turn; dropping it ends it, unless the thread had it before.
pub struct Turn<'a>(Option<&'a AtomicUsize>);

impl Turn<'_> {
    /// Of a worker that needs none.
    pub const NEEDLESS: Turn<'static> = Turn(None);
}

impl Turns {
    pub fn new() -> Turns {
        Turns {
            first: AtomicUsize::new(0),
            present: AtomicUsize::new(0),
            owner: AtomicUsize::new(0),
        }
    }

    /// Waits for the turn of the calling thread, which `me` names.
    #[inline(always)]
    pub fn take(&self, me: usize) -> Turn<'_> {
        match self.take_at_once(me) {
            Some(turn) => turn,
            None => self.take_slowly(me),
        }
    }

    /// Takes the turn if nobody has it, this thread included; otherwise, and when a thread comes
    /// for the first time, the caller must go on to [`Turns::take`].
    #[inline(always)]
    pub fn take_at_once(&self, me: usize) -> Option<Turn<'_>> {
        // Whoever sees that there is no first thread sees the owner that has ended it.
        match self.first.load(Ordering::Acquire) {
            first if first == me => self.take_as_first(me),
            NONE => self.take_as_any(me),
            _ => None,
        }
    }

    #[inline(always)]
    fn take_as_first(&self, me: usize) -> Option<Turn<'_>> {
        if self.present.load(Ordering::Relaxed) == me {
            return None;
        }
        self.present.store(me, Ordering::Relaxed);
        barrier::light();
        if self.first.load(Ordering::Relaxed) == me {
            return Some(Turn(Some(&self.present)));
        }
        self.present.store(0, Ordering::Release);
        None
    }

    #[inline(always)]
    fn take_as_any(&self, me: usize) -> Option<Turn<'_>> {
        self.owner
            .compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| Turn(Some(&self.owner)))
    }

    #[cold]
    #[inline(never)]
    fn take_slowly(&self, me: usize) -> Turn<'_> {
        // Only the thread itself writes its name.
        let has_it = |word: &AtomicUsize| word.load(Ordering::Relaxed) == me;
        if has_it(&self.present) || has_it(&self.owner) {
            return Turn(None);
        }
        let mut looks = 0;
        loop {
            if self.owner.load(Ordering::Relaxed) == 0
                && let Some(turn) = self.take_from_outside(me)
            {
                return turn;
            }
            looks += 1;
            pause(looks);
        }
    }

    fn take_from_outside(&self, me: usize) -> Option<Turn<'_>> {
        let came = self
            .first
            .compare_exchange(0, me, Ordering::Relaxed, Ordering::Acquire);
        match came {
            Err(first) if first != me => self.take_as_other(me),
            _ => self.take_as_first(me),
        }
    }

    /// Takes the turn as one of several, if need be as the second.
    fn take_as_other(&self, me: usize) -> Option<Turn<'_>> {
        let turn = self.take_as_any(me)?;
        if self.first.load(Ordering::Relaxed) != NONE {
            self.first.store(NONE, Ordering::Release);
            barrier::heavy();
            let mut looks = 0;
            while self.present.load(Ordering::Acquire) != 0 {
                looks += 1;
                pause(looks);
            }
        }
        Some(turn)
    }
}

#[cfg(not(loom))]
fn pause(looks: u32) {
    if looks < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
fn pause(_: u32) {
    loom::thread::yield_now();
}

impl Drop for Turn<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(word) = self.0 {
            word.store(0, Ordering::Release);
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p symvirt-guest --release turn`
#[cfg(all(test, loom))]
mod model {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    use super::*;

    struct Bed {
        turns: Turns,
        counter: UnsafeCell<u32>,
    }

    // SAFETY: loom watches the accesses.
    unsafe impl Sync for Bed {}
    // SAFETY: as above.
    unsafe impl Send for Bed {}

    fn count(bed: &Bed, me: usize) {
        let _turn = bed.turns.take(me);
        {
            // As a callback would.
            let _again = bed.turns.take(me);
        }
        // SAFETY: one thread at a time, or loom says so.
        bed.counter.with_mut(|counter| unsafe { *counter += 1 });
    }

    /// Each of the threads takes as many turns, all at once.
    fn threads_take_turns(threads: usize, turns: u32) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.max_branches = 10_000;
        model.check(move || {
            let bed = Arc::new(Bed {
                turns: Turns::new(),
                counter: UnsafeCell::new(0),
            });
            let others = (2..=threads).map(|me| {
                let bed = bed.clone();
                loom::thread::spawn(move || (0..turns).for_each(|_| count(&bed, me)))
            });
            let others: Vec<_> = others.collect();
            (0..turns).for_each(|_| count(&bed, 1));
            for other in others {
                other.join().expect("no panic");
            }
            let expected = u32::try_from(threads).expect("few") * turns;
            // SAFETY: alone again.
            bed.counter
                .with(|counter| unsafe { assert_eq!(*counter, expected) });
        });
    }

    #[test]
    fn one_thread_at_a_time_has_the_turn_and_may_come_back_to_it() {
        threads_take_turns(2, 2);
    }

    #[test]
    fn the_first_thread_loses_its_rights_to_one_of_two_others() {
        threads_take_turns(3, 1);
    }
}

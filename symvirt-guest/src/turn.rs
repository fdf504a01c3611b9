//! Whose turn it is with a worker that several application threads share.
//!
//! UCX locks such a worker in each of its calls (`UCS_THREAD_MODE_MULTI`). Ours is locked around
//! UCX's call and what we do before and after it, so UCX need not lock again: its own worker is
//! made for threads that take turns (`UCS_THREAD_MODE_SERIALIZED`), and nothing of ours that
//! belongs to a worker needs a lock or an atomic addition. One compare-and-exchange a call, as in
//! UCX; whoever has the turn may come back in its callbacks.
//!
//! Only application threads inside the gate take turns: a helper finds nobody there. Whoever waits
//! yields the processor, as the one it waits for may need it; UCX's lock would spin.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Looks before the processor is yielded: longer than most calls take.
const SPINS: u32 = 100;

/// See the module.
pub struct Turns {
    /// The thread that has the turn; 0 for none.
    owner: AtomicUsize,
}

/// A turn; dropping it ends it, unless the thread had it before.
pub struct Turn<'a>(Option<&'a Turns>);

impl Turns {
    pub fn new() -> Turns {
        Turns {
            owner: AtomicUsize::new(0),
        }
    }

    /// Waits for the turn of the calling thread, which `me` names; not 0.
    #[inline(always)]
    pub fn take(&self, me: usize) -> Turn<'_> {
        if self.try_take(me) {
            return Turn(Some(self));
        }
        self.take_slowly(me)
    }

    #[inline(always)]
    fn try_take(&self, me: usize) -> bool {
        self.owner
            .compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn take_slowly(&self, me: usize) -> Turn<'_> {
        // Only the thread itself writes its name.
        if self.owner.load(Ordering::Relaxed) == me {
            return Turn(None);
        }
        let mut looks = 0;
        loop {
            if self.owner.load(Ordering::Relaxed) == 0 && self.try_take(me) {
                return Turn(Some(self));
            }
            looks += 1;
            pause(looks);
        }
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
        if let Some(turns) = self.0 {
            turns.owner.store(0, Ordering::Release);
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

    #[test]
    fn one_thread_at_a_time_has_the_turn_and_may_come_back_to_it() {
        loom::model(|| {
            let bed = Arc::new(Bed {
                turns: Turns::new(),
                counter: UnsafeCell::new(0),
            });
            let other = {
                let bed = bed.clone();
                loom::thread::spawn(move || count(&bed, 2))
            };
            count(&bed, 1);
            other.join().expect("no panic");
            // SAFETY: alone again.
            bed.counter
                .with(|counter| unsafe { assert_eq!(*counter, 2) });
        });
    }
}

//! A queue whose things are delivered in order, by one thread at a time, which may come back to it
//! while it delivers. The model below checks it under every interleaving (loom).

use std::collections::VecDeque;

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// See the module.
pub struct Queue<T> {
    /// Waiting, or being delivered; and detours.
    count: AtomicUsize,
    waiting: Mutex<VecDeque<T>>,
    /// The thread that delivers; 0 for none.
    turn: AtomicUsize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            count: AtomicUsize::new(0),
            waiting: Mutex::new(VecDeque::new()),
            turn: AtomicUsize::new(0),
        }
    }
}

impl<T> Queue<T> {
    /// Adds to the end.
    pub fn push(&self, thing: T) {
        self.count.fetch_add(1, Ordering::Release);
        self.locked(|waiting| waiting.push_back(thing));
    }

    /// Keeps the queue from looking empty until [`Queue::end_detour`]: whoever looks comes to
    /// [`Queue::deliver`] first.
    pub fn begin_detour(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    /// See [`Queue::begin_detour`].
    pub fn end_detour(&self) {
        self.count.fetch_sub(1, Ordering::Release);
    }

    /// Whether nothing is waiting or being delivered.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Delivers what is waiting, in order; returns how many. `None` if another thread is at it.
    /// `me` names the calling thread, and is not 0.
    pub fn deliver(&self, me: usize, mut body: impl FnMut(T)) -> Option<u32> {
        if self.is_empty() {
            return Some(0);
        }
        let begun = self
            .turn
            .compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
        if begun.is_err_and(|other| other != me) {
            return None;
        }
        let mut delivered = 0;
        while let Some(next) = self.locked(VecDeque::pop_front) {
            body(next);
            self.count.fetch_sub(1, Ordering::Release);
            delivered += 1;
        }
        // Whoever comes back while it delivers finds its turn begun: not its to end.
        if begun.is_ok() {
            self.turn.store(0, Ordering::Release);
        }
        Some(delivered)
    }

    fn locked<R>(&self, body: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
        let mut waiting = match self.waiting.lock() {
            Ok(waiting) => waiting,
            // A panic of another holder has left nothing half-done.
            Err(poisoned) => poisoned.into_inner(),
        };
        body(&mut waiting)
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p symvirt-guest --release queue`
#[cfg(all(test, loom))]
mod model {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    use super::*;

    #[derive(Default)]
    struct Bed {
        queue: Queue<u32>,
        /// What was delivered: loom reports two threads that deliver at once.
        seen: UnsafeCell<Vec<u32>>,
    }

    // SAFETY: loom watches the accesses.
    unsafe impl Sync for Bed {}
    // SAFETY: as above.
    unsafe impl Send for Bed {}

    fn deliver(bed: &Bed, me: usize) -> Option<u32> {
        bed.queue.deliver(me, |thing| {
            // SAFETY: one thread at a time, or loom says so.
            bed.seen.with_mut(|seen| unsafe { (*seen).push(thing) });
        })
    }

    #[test]
    fn things_are_delivered_once_in_order_and_by_one_thread_at_a_time() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let bed = Arc::new(Bed::default());
            bed.queue.push(1);
            let helper = {
                let bed = bed.clone();
                loom::thread::spawn(move || bed.queue.push(2))
            };
            let other = {
                let bed = bed.clone();
                loom::thread::spawn(move || deliver(&bed, 2))
            };
            deliver(&bed, 1);
            helper.join().expect("no panic");
            other.join().expect("no panic");
            // Whatever came too late for both is still there.
            deliver(&bed, 1);
            assert!(bed.queue.is_empty());
            // SAFETY: alone again.
            bed.seen.with(|seen| unsafe { assert_eq!(*seen, [1, 2]) });
        });
    }
}

//! Completions and active messages that came while a helper drove the worker. Application
//! callbacks never run on a helper: the application finds them at its next `ucp_worker_progress`,
//! before anything newer.

use std::collections::VecDeque;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::arrival::Arrival;
use super::lock;
use super::request::{self, Request};

enum Waiting {
    Completion(*mut Request),
    Message(Arrival),
}

// SAFETY: requests live until they are delivered.
unsafe impl Send for Waiting {}

#[derive(Default)]
pub struct Deferred {
    /// Waiting, or being delivered.
    count: AtomicUsize,
    queue: Mutex<VecDeque<Waiting>>,
    /// The thread that delivers, named by the address of its mode; 0 for none.
    turn: AtomicUsize,
}

impl Deferred {
    /// A completion that the application is to be told of.
    pub fn push(&self, request: *mut Request) {
        self.add(Waiting::Completion(request));
    }

    /// A message that the application's handler is to get.
    pub fn push_message(&self, arrival: Arrival) {
        self.add(Waiting::Message(arrival));
    }

    fn add(&self, waiting: Waiting) {
        self.count.fetch_add(1, Ordering::Release);
        lock(&self.queue).push_back(waiting);
    }

    /// Whether nothing is waiting or being delivered.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Delivers what is waiting, in order; returns how many. `None` if another thread is at it:
    /// until that is done the caller must not progress the worker, or newer messages overtake.
    pub fn deliver(&self) -> Option<u32> {
        if self.is_empty() {
            return Some(0);
        }
        let me = ptr::from_ref(crate::tls::mode()).addr();
        let begun = self
            .turn
            .compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
        if begun.is_err_and(|other| other != me) {
            return None;
        }
        let mut delivered = 0;
        while let Some(next) = self.next() {
            match next {
                // SAFETY: each has fired and was queued once; we are on an application thread. A
                // worker outlives its requests.
                Waiting::Completion(request) => unsafe {
                    request::deliver(request, (*request).kind, (*(*request).worker).shared);
                },
                // SAFETY: queued once; on an application thread inside the gate.
                Waiting::Message(arrival) => unsafe { arrival.deliver() },
            }
            self.count.fetch_sub(1, Ordering::Release);
            delivered += 1;
        }
        // A handler that progresses the worker again finds its thread's turn begun: not its to end.
        if begun.is_ok() {
            self.turn.store(0, Ordering::Release);
        }
        Some(delivered)
    }

    fn next(&self) -> Option<Waiting> {
        lock(&self.queue).pop_front()
    }
}

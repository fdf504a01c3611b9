//! Completions and active messages that came while a helper drove the worker. Application
//! callbacks never run on a helper: the application finds them at its next `ucp_worker_progress`,
//! before anything newer.

use std::ptr;

use super::arrival::Arrival;
use super::request::{self, Request};
use crate::queue::Queue;

enum Waiting {
    Completion(*mut Request),
    Message(Arrival),
}

// SAFETY: requests live until they are delivered.
unsafe impl Send for Waiting {}

#[derive(Default)]
pub struct Deferred(Queue<Waiting>);

impl Deferred {
    /// A completion that the application is to be told of.
    pub fn push(&self, request: *mut Request) {
        self.0.push(Waiting::Completion(request));
    }

    /// A message that the application's handler is to get.
    pub fn push_message(&self, arrival: Arrival) {
        self.0.push(Waiting::Message(arrival));
    }

    /// Leads the application's progress the long way, as if something were waiting.
    pub fn begin_detour(&self) {
        self.0.begin_detour();
    }

    /// See [`Deferred::begin_detour`].
    pub fn end_detour(&self) {
        self.0.end_detour();
    }

    /// Whether nothing is waiting or being delivered.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Delivers what is waiting, in order; returns how many. `None` if another thread is at it:
    /// until that is done the caller must not progress the worker, or newer messages overtake. A
    /// handler that progresses the worker again may come back here.
    pub fn deliver(&self) -> Option<u32> {
        let me = ptr::from_ref(crate::tls::mode()).addr();
        self.0.deliver(me, |next| match next {
            // SAFETY: each has fired and was queued once; we are on an application thread. A
            // worker outlives its requests.
            Waiting::Completion(request) => unsafe {
                request::deliver(request, (*request).kind);
            },
            // SAFETY: queued once; on an application thread inside the gate.
            Waiting::Message(arrival) => unsafe { arrival.deliver() },
        })
    }
}

//! An active message that a helper has met, or that must not overtake one: in our memory until an
//! application thread progresses the worker.

use super::descriptor::{Bytes, Held};
use super::handlers::Slot;
use super::reply::Reply;

/// See the module.
pub struct Arrival {
    pub slot: *const Slot,
    pub header: Vec<u8>,
    pub data: Data,
    pub reply: Reply,
}

/// A message's data.
pub enum Data {
    Eager(Bytes),
    /// A descriptor of the worker's, and how many bytes it leads to.
    Rendezvous(Held, usize),
}

// SAFETY: a slot lives as long as its worker, which outlives what waits in it.
unsafe impl Send for Arrival {}

impl Arrival {
    /// Calls the application's handler.
    ///
    /// # Safety
    /// On an application thread, inside the gate.
    pub unsafe fn deliver(self) {
        // SAFETY: see above; by the caller's promise.
        unsafe { (*self.slot).deliver(self) };
    }
}

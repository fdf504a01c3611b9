//! The process's environment, which UCX reads while it makes contexts and workers. In a helper
//! that races with an application that changes it, so each waits for the other.
//!
//! Not a mutex of the standard library: a fork may copy it in its locked state, and the child,
//! where nobody would ever open it, is where programs like to call `setenv`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static HELD: AtomicBool = AtomicBool::new(false);

/// Granularity of the wait: either side is there rarely.
const NAP: Duration = Duration::from_micros(100);

/// The right to read or change the environment; dropping it gives it back.
pub struct Held(());

/// Waits for the environment. Building a side of the switch holds it for as long as `ucp_init`
/// and `ucp_worker_create` take, 0.01 to 1 s.
pub fn hold() -> Held {
    while HELD.swap(true, Ordering::Acquire) {
        std::thread::sleep(NAP);
    }
    Held(())
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.store(false, Ordering::Release);
    }
}

/// The holder, if there was one, is not in this process.
pub fn forget_after_fork() {
    HELD.store(false, Ordering::Relaxed);
}

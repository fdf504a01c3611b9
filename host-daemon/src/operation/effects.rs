//! The seams between the engine and the world: hosts, guests, clock, and where progress is shown.
//! The driver and the phases reach everything through these, so that a simulation can stand in
//! for all of it.

mod guests;
mod host;

pub use guests::{Guests, HandOver, Left, Standing, SwitchFailure, Switched};
pub use host::{CopyStatus, Crossing, Host, HostCall, HostError, HostReply, Streams};

/// Wall clock, for time stamps only; waits use tokio's clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

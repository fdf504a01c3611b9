//! Whole operations in a simulated world, under tokio's paused clock. The state machine, the driver
//! and the phases are the real ones; hosts, guests and the journal's disk are not.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

mod convergence;
mod crashes;
mod crossings;
mod postcopy;
mod schedules;
mod simulated;

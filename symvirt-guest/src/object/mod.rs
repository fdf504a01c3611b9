//! What the application holds in place of UCX's objects.
//!
//! Every object starts with a word that no object of UCX starts with: [`handle`] tells ours from
//! real ones, which pass through. Objects are created and destroyed by the application; the
//! switch changes their `real` side, and only while the gate is closed.

pub mod arrival;
pub mod context;
pub mod datatype;
pub mod deferred;
pub mod descriptor;
pub mod drained;
pub mod endpoint;
pub mod handle;
pub mod handler;
pub mod handlers;
pub mod headers;
pub mod key;
pub mod lanes;
pub mod memory;
pub mod message;
pub mod near;
pub mod pages;
pub mod pool;
pub mod posted;
pub mod reply;
pub mod request;
pub mod route;
pub mod syncs;
pub mod traffic;
pub mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic of another holder has left nothing half-done that we could mend.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

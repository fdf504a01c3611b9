//! A word that threads wait on.

use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Futex(AtomicU32);

impl Futex {
    #[cfg(not(loom))]
    pub const fn new(value: u32) -> Futex {
        Futex(AtomicU32::new(value))
    }

    #[cfg(loom)]
    pub fn new(value: u32) -> Futex {
        Futex(AtomicU32::new(value))
    }

    /// What was written before the value that is read, is visible afterwards.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    pub fn set(&self, value: u32) {
        self.0.store(value, Ordering::SeqCst);
    }

    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn subtract_one(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Sleeps while the word is `value`, at most `limit`; may wake early.
    #[cfg(not(loom))]
    pub fn wait_while(&self, value: u32, limit: Option<Duration>) {
        let timeout = limit.map(|limit| libc::timespec {
            tv_sec: limit.as_secs().min(3600) as libc::time_t,
            tv_nsec: libc::c_long::from(limit.subsec_nanos()),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as `self`, the timeout until the call returns.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), wait, value, timeout) };
    }

    #[cfg(not(loom))]
    pub fn wake_all(&self) {
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as `self`.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), wake, i32::MAX) };
    }

    #[cfg(loom)]
    pub fn wait_while(&self, value: u32, _limit: Option<Duration>) {
        while self.0.load(Ordering::SeqCst) == value {
            loom::thread::yield_now();
        }
    }

    #[cfg(loom)]
    pub fn wake_all(&self) {}
}

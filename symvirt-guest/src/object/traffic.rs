//! What a worker counts: the ranks compare it to know that nothing is under way any more.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Counters of one epoch.
#[derive(Default)]
pub struct Traffic {
    /// Receives by tag that completed, truncated ones included, and active messages.
    received: AtomicU64,
    /// Messages that a probe removed.
    probed: AtomicU64,
    /// Sends, flushes, closes, receives of probed and active messages that are under way, by the
    /// real side that they are on: of two in use one after the other.
    operations: [AtomicI64; 2],
    /// Bytes of the sends among them: their receivers may have to keep them.
    sending: AtomicI64,
    /// Atomics were issued.
    atomics: AtomicBool,
}

/// Adds one; only the thread whose turn it is with the worker does so.
#[inline(always)]
pub fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Traffic {
    #[inline(always)]
    pub fn count_received(&self) {
        bump(&self.received);
    }

    pub fn count_probed(&self) {
        bump(&self.probed);
    }

    #[inline(always)]
    pub fn operation_started(&self, side: u8) {
        self.operations[usize::from(side % 2)].fetch_add(1, Ordering::Relaxed);
    }

    #[inline(always)]
    pub fn operation_ended(&self, side: u8) {
        self.operations[usize::from(side % 2)].fetch_sub(1, Ordering::Release);
    }

    /// A send of so many bytes is under way.
    pub fn sending_started(&self, bytes: usize) {
        self.sending.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    pub fn sending_ended(&self, bytes: usize) {
        self.sending.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    /// Bytes of the sends under way; under the closed gate.
    pub fn sending(&self) -> u64 {
        self.sending.load(Ordering::Relaxed).max(0) as u64
    }

    /// Messages that have arrived in this epoch.
    pub fn arrived(&self) -> u64 {
        self.received.load(Ordering::Relaxed) + self.probed.load(Ordering::Relaxed)
    }

    /// An atomic was issued. Not a counter of the hot path: it is set far more often than read.
    #[inline(always)]
    pub fn note_atomic(&self) {
        self.atomics.store(true, Ordering::Relaxed);
    }

    /// Whether atomics were issued in this epoch.
    pub fn has_atomics(&self) -> bool {
        self.atomics.load(Ordering::Relaxed)
    }

    /// Operations under way.
    pub fn operations(&self) -> i64 {
        self.operations_on(0) + self.operations_on(1)
    }

    /// Operations under way on a side.
    pub fn operations_on(&self, side: u8) -> i64 {
        self.operations[usize::from(side % 2)].load(Ordering::Acquire)
    }

    /// A new epoch begins, and everything that was sent here in the last one has arrived.
    pub fn reset(&self) {
        self.received.store(0, Ordering::Relaxed);
        self.probed.store(0, Ordering::Relaxed);
        self.atomics.store(false, Ordering::Relaxed);
    }
}

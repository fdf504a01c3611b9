//! How far the job is slowed down while its VMs are copied: step by step, each time the gang has
//! stopped converging, as far as was allowed. The library does it, on all ranks in the same beat
//! (see `symvirt-guest`'s `slowdown.rs`); a gang without ranks is left to QEMU.

use std::time::Duration;

use tokio::time::Instant;

use crate::operation::effects::Guests;

/// By how much more, in percent of the time.
const STEP: u8 = 30;
/// A slow-down is over a few seconds after it was last asked for: it is said again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Slower {
    limit: u8,
    percent: u8,
    said: Option<Instant>,
}

impl Slower {
    /// Not yet; `limit` percent at most.
    pub(super) fn until(limit: u8) -> Self {
        Self {
            limit,
            percent: 0,
            said: None,
        }
    }

    /// By how much it is now.
    pub(super) fn percent(&self) -> u8 {
        self.percent
    }

    /// Another step, if one is left.
    pub(super) fn step(&mut self) -> bool {
        let further = self.percent < self.limit;
        self.percent = self.percent.saturating_add(STEP).min(self.limit);
        self.said = None;
        further
    }

    /// Keeps the job as slow as it is to be.
    pub(super) fn keep(&mut self, guests: &dyn Guests) {
        let is_due = self.said.is_none_or(|said| said.elapsed() >= AGAIN);
        if self.percent > 0 && is_due {
            guests.slow_down(self.percent);
            self.said = Some(Instant::now());
        }
    }

    /// Lets the job go on as it was.
    pub(super) fn end(&self, guests: &dyn Guests) {
        if self.percent > 0 {
            guests.slow_down(0);
        }
    }
}

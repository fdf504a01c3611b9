//! Processes that do not answer in a switch: the coordinator is told where they stand, before its
//! patience ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use symvirt_inspect::threads;

use super::core::Core;

/// An answer that takes longer is overdue.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the present request is, and since when.
#[derive(Debug)]
pub struct Overdue {
    proc: PathBuf,
    request: u64,
    since: Instant,
    told: bool,
}

impl Overdue {
    /// Nothing was asked.
    pub fn new() -> Overdue {
        Overdue {
            proc: Path::new("/proc").to_owned(),
            request: 0,
            since: Instant::now(),
            told: true,
        }
    }

    /// When [`Overdue::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.told).then(|| self.since + PATIENCE)
    }

    /// To be called whenever the core has heard something, and when the deadline has passed.
    pub fn tick(&mut self, core: &mut Core, now: Instant) {
        let (request, owing) = core.owing();
        if request != self.request {
            (self.request, self.since, self.told) = (request, now, false);
        }
        if owing.is_empty() {
            self.told = true;
        }
        if self.told || now.duration_since(self.since) < PATIENCE {
            return;
        }
        self.told = true;
        for (process, pid) in owing {
            let seen = threads::describe(&self.proc, pid);
            core.tell_where_it_stands(process, seen.as_deref().unwrap_or("the process is gone"));
        }
    }
}

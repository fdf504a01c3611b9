//! Regions of the application in which its process is not to be quiesced (`symvirt_hold`).
//!
//! ```text
//!   open ── vote of this rank: waits for the last region to end ──► shut ── end of the round ─► open
//!    │                        too long: veto by the region's name     │
//!    └ a region begins at once                                        └ a region waits for the end;
//!                                                                       too long: veto by its name
//! ```
//! The wait comes before the vote, while the job runs on everywhere: once a rank has closed its
//! gate, all stand still for the slowest.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{gang, round};
use crate::object::lock;

struct Holds {
    regions: Vec<String>,
    shut: bool,
}

static HOLDS: Mutex<Holds> = Mutex::new(Holds {
    regions: Vec::new(),
    shut: false,
});
static CHANGED: Condvar = Condvar::new();

/// How long a vote waits for regions to end, unless `SYMVIRT_HOLD_LIMIT` says otherwise.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a region waits for the switch under way before it vetoes it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a wait looks whether the round was abandoned.
const LOOK: Duration = Duration::from_millis(20);

/// The limit; read first on a thread of the application, because helpers race with its `setenv`.
pub fn limit() -> Duration {
    static LIMIT_ASKED: OnceLock<Duration> = OnceLock::new();
    *LIMIT_ASKED.get_or_init(|| {
        let Ok(text) = std::env::var("SYMVIRT_HOLD_LIMIT") else {
            return LIMIT;
        };
        let seconds = text.parse().ok();
        let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        limit.unwrap_or_else(|| {
            crate::log::warning!(
                "SYMVIRT_HOLD_LIMIT={text} is no number of seconds; it is {LIMIT:?}"
            );
            LIMIT
        })
    })
}

/// Begins a region.
pub fn hold(region: &str) {
    let mut holds = lock(&HOLDS);
    let begun = Instant::now();
    let mut vetoed = false;
    // Inside another region it cannot be: then there would have been no vote.
    while holds.shut && gang::is_member() {
        if !vetoed && begun.elapsed() >= PATIENCE {
            vetoed = true;
            drop(holds);
            round::spoil(&format!(
                "the program begins the region \"{region}\", in which it must not be quiesced"
            ));
            holds = lock(&HOLDS);
            continue;
        }
        let waited = CHANGED.wait_timeout(holds, LOOK);
        holds = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    holds.regions.push(region.to_owned());
}

/// Ends the region that was begun last; `false` if there is none.
pub fn allow() -> bool {
    let ended = lock(&HOLDS).regions.pop().is_some();
    CHANGED.notify_all();
    ended
}

/// Regions that hold the process.
pub fn count() -> usize {
    lock(&HOLDS).regions.len()
}

/// Waits for the last region to end, and lets no new one begin before [`open`].
///
/// # Errors
/// The reason for a veto; `None` if the round was abandoned meanwhile.
pub fn shut(is_abandoned: impl Fn() -> bool) -> Result<(), Option<String>> {
    let limit = limit();
    let begun = Instant::now();
    let mut holds = lock(&HOLDS);
    while let Some(region) = holds.regions.last() {
        if begun.elapsed() >= limit {
            return Err(Some(format!(
                "the program has been in the region \"{region}\", in which it must not be \
                 quiesced (symvirt_hold), for {limit:?} (SYMVIRT_HOLD_LIMIT)"
            )));
        }
        if is_abandoned() {
            return Err(None);
        }
        let waited = CHANGED.wait_timeout(holds, LOOK);
        holds = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    holds.shut = true;
    Ok(())
}

/// The round is over.
pub fn open() {
    lock(&HOLDS).shut = false;
    CHANGED.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: there is one set of regions.
    #[test]
    fn regions_nest_and_a_vote_waits_for_the_last() {
        assert!(!allow());
        hold("outer");
        hold("inner");
        assert_eq!(count(), 2);
        assert!(allow());
        assert_eq!(shut(|| true), Err(None));
        let voter = std::thread::spawn(|| shut(|| false));
        std::thread::sleep(3 * LOOK);
        assert!(!voter.is_finished());
        assert!(allow());
        assert_eq!(voter.join().expect("no panic"), Ok(()));
        open();
        hold("long");
        assert!(allow());
    }
}

//! The loop that fulfils wishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{Seen, Step, Wish, Wishes, step};
use crate::config::{GangName, HcaName, VmName};
use crate::operation::{OperationId, Phase};

/// Between two looks while something changes.
const SOON: Duration = Duration::from_secs(2);
/// Between two looks at a port that has long been down.
const LATE: Duration = Duration::from_secs(30);
/// Pause after a failed attempt; doubled each time.
const FAILED: Duration = Duration::from_secs(15);
/// Longest pause.
const FAILED_MAX: Duration = Duration::from_secs(3600);

/// What the loop does to gangs.
pub trait Surroundings: Send + Sync {
    /// Looks at a gang, and asks its guests to report their devices until the next look.
    fn look(&self, gang: &GangName) -> BoxFuture<'_, Seen>;
    /// Plugs an HCA.
    fn plug(&self, wish: &Wish, vm: VmName, hca: HcaName) -> BoxFuture<'_, Result<(), String>>;
    /// Moves the job of a gang onto its HCAs, and returns when that has ended; the error says why it
    /// was not begun.
    fn switch(&self, gang: &GangName) -> BoxFuture<'_, Result<Ended, String>>;
    /// Forgets an operation that was without effect, and is of interest to nobody any more.
    fn forget(&self, operation: &OperationId);
}

/// How the operation ended that was to fulfil a wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Which.
    pub operation: OperationId,
    /// A terminal phase.
    pub phase: Phase,
    /// Why it is not as asked.
    pub reason: String,
}

/// What the loop remembers of a gang; a daemon that starts begins without.
struct Tried {
    wish: Wish,
    before: Option<Seen>,
    pause: Duration,
    failures: u32,
    due: Instant,
}

/// Fulfils wishes. Never returns; may be dropped at any moment.
pub async fn run(wishes: Arc<Wishes>, surroundings: Arc<dyn Surroundings>) {
    let mut changes = wishes.changes();
    let mut tried: BTreeMap<GangName, Tried> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let wanted: Vec<_> = wishes.list().into_iter().map(|info| info.wish).collect();
        tried.retain(|_, tried| wanted.contains(&tried.wish));
        for wish in wanted {
            tried.entry(wish.gang.clone()).or_insert(Tried {
                wish,
                before: None,
                pause: SOON,
                failures: 0,
                due: Instant::now(),
            });
        }
        let now = Instant::now();
        let due = tried.values_mut().filter(|tried| tried.due <= now);
        let attempts = due.map(|tried| attempt(&wishes, &*surroundings, tried));
        join_all(attempts).await;
        let next = tried.values().map(|tried| tried.due).min();
        let pause = next.map_or(LATE, |due| due.saturating_duration_since(Instant::now()));
        // Either there is something new, or it is time.
        if let Ok(Err(_)) = timeout(pause, changes.changed()).await {
            return;
        }
    }
}

async fn attempt(wishes: &Wishes, surroundings: &dyn Surroundings, tried: &mut Tried) {
    let wish = tried.wish.clone();
    let seen = surroundings.look(&wish.gang).await;
    let changed = tried.before.as_ref() != Some(&seen);
    tried.pause = match changed {
        true => SOON,
        false => LATE.min(tried.pause * 2),
    };
    let failed = |tried: &mut Tried, why: &str| {
        tried.failures += 1;
        let doubled = FAILED * 2u32.saturating_pow(tried.failures.min(10) - 1);
        tried.pause = FAILED_MAX.min(doubled);
        wishes.tell(&wish, why, true);
    };
    match step(&wish, tried.before.as_ref(), &seen) {
        Step::Drop(why) => fulfilled(wishes, &wish, &why),
        Step::Wait(why) => wishes.tell(&wish, &why, false),
        Step::Plug(vm, hca) => {
            if let Err(why) = surroundings.plug(&wish, vm.clone(), hca.clone()).await {
                failed(tried, &format!("plug {hca} into {vm}: {why}"));
            } else {
                info!(gang = %wish.gang, %vm, %hca, "HCA plugged after all");
            }
        }
        Step::Switch => match surroundings.switch(&wish.gang).await {
            Ok(Ended {
                operation,
                phase: Phase::Done,
                ..
            }) => fulfilled(wishes, &wish, &format!("{operation} has done it")),
            Ok(ended) => {
                // One that goes on failing is shown once.
                let earlier = wishes.attempted(&wish, &ended.operation);
                if let Some(earlier) = earlier.filter(|earlier| *earlier != ended.operation) {
                    surroundings.forget(&earlier);
                }
                failed(
                    tried,
                    &format!(
                        "{} ended {}: {}",
                        ended.operation, ended.phase, ended.reason
                    ),
                );
            }
            Err(why) => failed(tried, &why),
        },
    }
    tried.before = Some(seen);
    tried.due = Instant::now() + tried.pause;
}

fn fulfilled(wishes: &Wishes, wish: &Wish, why: &str) {
    info!(gang = %wish.gang, operation_id = %wish.operation, why, "retry ended");
    if let Err(error) = wishes.remove(&wish.operation) {
        warn!(gang = %wish.gang, %error, "the file of a retry that has ended is left");
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;

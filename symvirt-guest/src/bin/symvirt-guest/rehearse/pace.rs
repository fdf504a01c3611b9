//! When a rehearsal switches, and when it disturbs a switch.

use std::time::{Duration, Instant};

use super::interval::Interval;

/// How long after the first rank joined the first switch begins, at most.
const FIRST_SWITCH: Duration = Duration::from_millis(50);
/// Cancellations, and losses of memory, go through the first moments of a switch in steps like this.
const CANCEL_STEP: Duration = Duration::from_millis(1);
const CANCEL_STEPS: u64 = 60;
/// Times after which a coordinator forgets, each half as long again as the one before.
const OBLIVION_STEPS: u64 = 16;

/// When to switch.
pub struct Pace {
    every: Interval,
    stop: Option<Instant>,
    limit: Option<u64>,
    next: Option<Instant>,
    attempts: u64,
}

/// What the pace depends on.
#[derive(Clone, Copy)]
pub struct Standing {
    /// Ranks are there, and no switch is under way.
    pub is_ready: bool,
    /// Switches that went through.
    pub done: u64,
}

impl Pace {
    /// A switch `every` so often, until `stop` or until `limit` of them are done.
    pub fn new(every: Interval, stop: Option<Instant>, limit: Option<u64>) -> Self {
        Pace {
            every,
            stop,
            limit,
            next: None,
            attempts: 0,
        }
    }

    fn is_over(&self, now: Instant, standing: Standing) -> bool {
        self.stop.is_some_and(|stop| stop <= now)
            || self.limit.is_some_and(|limit| standing.done >= limit)
    }

    /// The number of the switch that is to begin now.
    pub fn due(&mut self, now: Instant, standing: Standing) -> Option<usize> {
        if self.is_over(now, standing) || !standing.is_ready {
            return None;
        }
        let every = self.every.draw();
        let next = *self.next.get_or_insert(now + every.min(FIRST_SWITCH));
        if next > now {
            return None;
        }
        self.next = Some(now + every);
        self.attempts += 1;
        // A switch that was abandoned is tried again, not skipped.
        usize::try_from(standing.done).ok()
    }

    /// When [`Pace::due`] may have something to say again; never once switching is over: whoever
    /// waits for a moment that has passed takes a processor from the job.
    pub fn next(&self, now: Instant, standing: Standing) -> Option<Instant> {
        self.next
            .filter(|_| standing.is_ready && !self.is_over(now, standing))
    }

    /// When the attempt that begins now is to be cancelled.
    pub fn interruption(&self, every: Option<u64>, now: Instant) -> Option<Instant> {
        let every = every.filter(|every| self.attempts.is_multiple_of(*every))?;
        let step = u32::try_from(self.attempts / every % CANCEL_STEPS).ok()?;
        Some(now + CANCEL_STEP * step)
    }

    /// When its coordinator is to forget it: after a time of any order of magnitude, since a late
    /// step of it may come after milliseconds, or, on a busy machine, tenths of a second.
    pub fn oblivion(&self, every: Option<u64>, now: Instant) -> Option<Instant> {
        let every = every.filter(|every| self.attempts.is_multiple_of(*every))?;
        let step = i32::try_from(self.attempts / every % OBLIVION_STEPS).ok()?;
        Some(now + CANCEL_STEP.mul_f64(1.5_f64.powi(step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(20);

    /// Waits as the rehearsal does and lets every switch through at once; how often it woke, and
    /// how many switches there were.
    fn live(mut pace: Pace, begin: Instant, end: Instant) -> (u64, u64) {
        let (mut now, mut wakes, mut done) = (begin, 0, 0);
        while now < end {
            let ready = |done| Standing {
                is_ready: true,
                done,
            };
            if pace.due(now, ready(done)).is_some() {
                done += 1;
            }
            let next = pace.next(now, ready(done)).unwrap_or(end);
            assert!(next > now, "waits for a moment that has passed");
            (now, wakes) = (next, wakes + 1);
        }
        (wakes, done)
    }

    #[test]
    fn a_rehearsal_that_has_switched_enough_rests() {
        let begin = Instant::now();
        let pace = Pace::new(EVERY.into(), None, Some(3));
        let (wakes, done) = live(pace, begin, begin + EVERY * 100);
        assert_eq!(done, 3);
        assert!(wakes <= 5, "{wakes} wake-ups for 3 switches");
    }

    #[test]
    fn a_rehearsal_that_has_switched_for_long_enough_rests() {
        let begin = Instant::now();
        let pace = Pace::new(EVERY.into(), Some(begin + EVERY * 10), None);
        let (wakes, done) = live(pace, begin, begin + EVERY * 100);
        assert!((8..=10).contains(&done), "{done} switches in ten intervals");
        assert!(wakes <= 12, "{wakes} wake-ups for {done} switches");
    }

    #[test]
    fn nothing_is_waited_for_while_a_switch_is_under_way() {
        let now = Instant::now();
        let mut pace = Pace::new(EVERY.into(), None, None);
        let standing = |is_ready| Standing { is_ready, done: 0 };
        assert_eq!(pace.due(now, standing(true)), None, "the first is delayed");
        assert!(pace.next(now, standing(true)).is_some());
        assert_eq!(pace.next(now, standing(false)), None);
        assert_eq!(pace.due(now + EVERY * 9, standing(false)), None);
    }
}

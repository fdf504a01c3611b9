//! The job is slowed down while its VMs are copied and dirty their memory faster than the link
//! carries it: the gates of all ranks close in the same beat, for a part of each.
//!
//! ```text
//!   clock      0 ms           100            200            300
//!   gate       ████▒──────────████───────────████████▒▒─────████──────   40 % closed
//!                  └ open by then: nobody is inside UCX for long
//!                                └ a rank that computed through a pause, or a part of it, stands
//!                                  still for as much longer as that would have taken it
//! ```
//!
//! A hypervisor slows each VM's processors at times of its own, and ranks that wait for each other
//! then wait for the slowest, one after the other. Beats are counted by the clock of the guest
//! (`CLOCK_REALTIME`), which hosts of one site keep together to milliseconds; guests that do not
//! agree are slowed down as much, but not together.
//!
//! Any message of the coordinator ends a pause: a switch is never held up. What was not repeated in
//! time is over, so that no job stays slow because its coordinator is gone.

use std::time::{Duration, Instant, SystemTime};

use crate::gate::GATE;

const BEAT: Duration = Duration::from_millis(100);
/// Never more than this part of a beat, in percent: the job is to get on.
const MOST: u8 = 95;
/// What a rank may owe, and the longest pause: one that computes for longer without a word to others
/// is not slowed down as much.
const CREDIT: Duration = Duration::from_secs(2);
/// How long a pause waits for threads to leave UCX before it is left out.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often a pause looks who waits.
const LOOK: Duration = Duration::from_millis(2);

/// See the module. Dropping it ends it.
#[derive(Default)]
pub struct Slowdown {
    order: Option<Order>,
    pause: Option<Pause>,
    owed: Duration,
}

/// What the coordinator asked for.
struct Order {
    percent: u8,
    until: Instant,
}

/// The gate is closed.
struct Pause {
    since: Instant,
    looked: Instant,
}

impl Slowdown {
    /// Slows the job down by so many percent, for so long unless it is repeated; 0 ends it.
    pub fn order(&mut self, percent: u8, lasting: Duration) {
        let percent = percent.min(MOST);
        if self.percent() != percent {
            crate::log::info!("the job is slowed down by {percent} %");
        }
        let until = Instant::now() + lasting;
        self.order = (percent > 0).then_some(Order { percent, until });
        if percent == 0 {
            self.owed = Duration::ZERO;
        }
    }

    /// By how many percent.
    pub fn percent(&self) -> u8 {
        self.order.as_ref().map_or(0, |order| order.percent)
    }

    /// Opens the gate if it is closed for a pause.
    pub fn interrupt(&mut self) {
        if self.pause.take().is_some() {
            GATE.open();
        }
    }

    /// Does what is due; returns when to come again. `None`: nothing is asked for.
    pub fn step(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let Some(order) = &self.order else {
            self.interrupt();
            return None;
        };
        if now >= order.until {
            self.order(0, Duration::ZERO);
            self.interrupt();
            return None;
        }
        let closed = BEAT * u32::from(order.percent) / 100;
        if let Some(pause) = &mut self.pause {
            let is_awaited = GATE.is_awaited();
            let passed = now - pause.looked;
            self.owed = match is_awaited {
                true => self.owed.saturating_sub(passed),
                false => (self.owed + debt(passed, order.percent)).min(CREDIT),
            };
            pause.looked = now;
            if is_over(now - pause.since, closed, is_awaited, self.owed) {
                self.interrupt();
            }
            return Some(LOOK);
        }
        let into = into_beat(SystemTime::now());
        if into >= closed {
            return Some(BEAT - into);
        }
        if GATE.close(PATIENCE).is_err() {
            // A thread stays inside for long: not in this beat.
            return Some(BEAT - into);
        }
        self.pause = Some(Pause {
            since: now,
            looked: Instant::now(),
        });
        Some(LOOK)
    }
}

impl Drop for Slowdown {
    fn drop(&mut self) {
        self.interrupt();
    }
}

/// How long the present beat has lasted.
fn into_beat(now: SystemTime) -> Duration {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos() % BEAT.as_nanos();
    Duration::from_nanos(nanos as u64)
}

/// How long a rank is to stand still for having worked for `worked`.
fn debt(worked: Duration, percent: u8) -> Duration {
    worked * u32::from(percent) / u32::from(100 - percent)
}

/// Whether a pause that has lasted `lasted` is over: its part of the beat is, and nobody who owes
/// more waits.
fn is_over(lasted: Duration, closed: Duration, is_awaited: bool, owed: Duration) -> bool {
    let pays = is_awaited && !owed.is_zero() && lasted < CREDIT;
    lasted >= closed && !pays
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Duration = Duration::from_millis(40);

    #[test]
    fn beats_begin_with_the_tenths_of_a_second_on_everybody_s_clock() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(into_beat(at(1_000_000_000_200)), Duration::ZERO);
        assert_eq!(into_beat(at(1_000_000_000_299)), Duration::from_millis(99));
    }

    #[test]
    fn who_works_for_a_twentieth_of_the_time_stands_still_for_the_rest() {
        let millis = Duration::from_millis;
        assert_eq!(debt(millis(60), 95), millis(1140));
        assert_eq!(debt(millis(60), 60), millis(90));
    }

    /// For how long a thread that passes the gate all the time was kept out of it, in `time`.
    fn kept_out(time: Duration) -> Duration {
        let (begun, mut last, mut out) = (Instant::now(), Instant::now(), Duration::ZERO);
        while begun.elapsed() < time {
            drop(crate::gate::enter());
            if last.elapsed() > 5 * LOOK {
                out += last.elapsed();
            }
            last = Instant::now();
        }
        out
    }

    #[test]
    fn a_thread_that_uses_ucx_stands_still_for_its_part_of_the_time_until_it_is_over() {
        let (time, lasting) = (Duration::from_secs(1), Duration::from_secs(3));
        let job = std::thread::spawn(move || kept_out(time));
        let mut slowdown = Slowdown::default();
        slowdown.order(60, lasting);
        while !job.is_finished() {
            std::thread::sleep(slowdown.step().expect("not over yet"));
        }
        let out = job.join().expect("no panic");
        assert!(out > time * 4 / 10, "kept out for {out:?} of {time:?}");
        std::thread::sleep(lasting);
        assert_eq!(slowdown.step(), None);
        assert!(GATE.close(PATIENCE).is_ok(), "nobody else has closed it");
        GATE.open();
    }

    #[test]
    fn whoever_computed_through_pauses_pays_when_he_comes_but_not_for_ever() {
        let millis = Duration::from_millis;
        assert!(!is_over(millis(39), CLOSED, true, Duration::ZERO));
        assert!(is_over(millis(40), CLOSED, true, Duration::ZERO));
        assert!(is_over(millis(40), CLOSED, false, millis(500)));
        assert!(!is_over(millis(40), CLOSED, true, millis(500)));
        assert!(is_over(CREDIT, CLOSED, true, millis(500)));
    }
}

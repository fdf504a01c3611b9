//! The time between two switches: `--every 200ms`, or at random, `--every 20ms..300ms`.

use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

/// What `--every` says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    shortest: Duration,
    longest: Duration,
}

/// Why it is not understood.
#[derive(Debug, thiserror::Error)]
pub enum BadInterval {
    /// No time.
    #[error("{text:?} is no time (200ms) and no range of times (20ms..300ms)")]
    Unknown {
        text: String,
        #[source]
        source: humantime::DurationError,
    },
    /// Backwards.
    #[error("{0:?}: the first time is to be the shorter one")]
    Backwards(String),
}

impl FromStr for Interval {
    type Err = BadInterval;

    fn from_str(text: &str) -> Result<Self, BadInterval> {
        let time = |part: &str| {
            humantime::parse_duration(part.trim()).map_err(|source| BadInterval::Unknown {
                text: text.to_owned(),
                source,
            })
        };
        let (shortest, longest) = text.split_once("..").unwrap_or((text, text));
        let (shortest, longest) = (time(shortest)?, time(longest)?);
        if shortest > longest {
            return Err(BadInterval::Backwards(text.to_owned()));
        }
        Ok(Interval { shortest, longest })
    }
}

impl From<Duration> for Interval {
    fn from(always: Duration) -> Self {
        Interval {
            shortest: always,
            longest: always,
        }
    }
}

impl Interval {
    /// The next time to wait.
    pub fn draw(self) -> Duration {
        // The standard library's random source: every `RandomState` has keys of its own.
        let random = RandomState::new().hash_one(0) as u32;
        (self.longest - self.shortest).mul_f64(f64::from(random) / f64::from(u32::MAX))
            + self.shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_is_always_the_same() {
        let interval: Interval = "50ms".parse().expect("a time");
        assert_eq!(interval.draw(), Duration::from_millis(50));
    }

    #[test]
    fn of_a_range_all_of_it_is_drawn_and_nothing_else() {
        let interval: Interval = "20ms..300ms".parse().expect("a range");
        let drawn: Vec<Duration> = (0..1000).map(|_| interval.draw()).collect();
        let ms = Duration::from_millis;
        assert!(drawn.iter().all(|time| (ms(20)..=ms(300)).contains(time)));
        for part in 0..4 {
            let (from, to) = (ms(20 + 70 * part), ms(90 + 70 * part));
            assert!(drawn.iter().any(|time| (from..to).contains(time)), "{part}");
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        for text in ["", "soon", "20ms..", "300ms..20ms"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}

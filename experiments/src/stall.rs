//! What the stall probe saw: a steady ping-pong that reports every gap, from inside the job.
//!
//! A guest's clock stands still while its VM does, so a gap seen inside misses the VM's own
//! standstill at its switchover: [`Gap::with_standstill`] adds it. Guests keep their own time of
//! day; [`ClockOffset`] lays it on this machine's.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lab::LabError;
use crate::lab::guest::Guest;
use crate::traffic::now_ms;

#[derive(Deserialize)]
struct Line {
    program: String,
    #[serde(default)]
    gap: bool,
    start: f64,
    duration_us: f64,
}

/// A time in which two ranks exchanged nothing.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Gap {
    /// Its begin by this machine's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its length by the guest's clock.
    pub length: Duration,
}

/// How often the guest tells its time.
const ASKED: u32 = 8;

/// Difference between this machine's clock and a guest's, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ClockOffset(f64);

impl ClockOffset {
    /// Lets the guest tell its time, some times, and takes the word that came the quickest: a
    /// login takes an emulated guest half a second, a line that it writes a millisecond.
    ///
    /// # Errors
    /// If the guest does not answer.
    pub fn of(guest: &Guest) -> Result<Self, LabError> {
        let script = format!("for i in $(seq {ASKED}); do date +%s.%N; sleep 0.05; done");
        let mut command = guest.ssh(&script);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let failed = |source| LabError::File {
            what: "ask for the time by",
            path: "ip netns exec … ssh".into(),
            source,
        };
        let mut child = command.spawn().map_err(failed)?;
        let lines = child.stdout.take().map(BufReader::new).into_iter();
        let offsets = lines
            .flat_map(BufRead::lines)
            .map_while(Result::ok)
            .filter_map(|line| Some(now_ms() as f64 / 1e3 - line.trim().parse::<f64>().ok()?));
        let least = offsets.min_by(f64::total_cmp);
        child.wait().map_err(failed)?;
        least.map(Self).ok_or_else(|| {
            let silent = std::io::Error::other("the guest does not tell its time");
            failed(silent)
        })
    }
}

/// The longest gaps, as the probe reports them at its end. It could report each at once, but on a
/// loaded machine those lines would be more traffic than the job's own.
pub fn gaps(output: &[String], offset: ClockOffset) -> Vec<Gap> {
    let lines = output
        .iter()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines
        .filter(|line| line.program == "stall_probe" && line.gap)
        .map(|line| Gap {
            at_ms: ((line.start + offset.0).max(0.0) * 1e3) as u64,
            length: Duration::from_secs_f64(line.duration_us.max(0.0) / 1e6),
        })
        .collect()
}

/// The longest gap that begins between two instants, give or take a second for the clocks.
pub fn longest(gaps: &[Gap], from_ms: u64, to_ms: u64) -> Option<Gap> {
    const SLACK_MS: u64 = 1000;
    let window = from_ms.saturating_sub(SLACK_MS)..=to_ms + SLACK_MS;
    let inside = gaps.iter().filter(|gap| window.contains(&gap.at_ms));
    inside.max_by_key(|gap| gap.length).copied()
}

impl Gap {
    /// Whether some of it is between two instants.
    pub fn overlaps(self, from_ms: u64, to_ms: u64) -> bool {
        let end_ms = self.at_ms + self.length.as_millis() as u64;
        self.at_ms <= to_ms && end_ms >= from_ms
    }

    /// Its length by a clock that does not stand still with the VM.
    pub fn with_standstill(self, standstill: Duration) -> Duration {
        self.length + standstill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_probes_closing_gaps_count() {
        let output = [
            r#"{"program":"stall_probe","gap":true,"start":100.5,"duration_us":2500.0}"#,
            r#"{"program":"stall_probe","live":true,"start":100.5,"duration_us":2500.0}"#,
            "OK stall_probe ranks=2",
        ]
        .map(str::to_owned);
        let gaps = gaps(&output, ClockOffset(10.0));
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].at_ms, 110_500);
        assert_eq!(longest(&gaps, 110_000, 111_000), Some(gaps[0]));
        assert_eq!(longest(&gaps, 113_000, 114_000), None);
        assert!(
            gaps[0].overlaps(110_502, 110_600),
            "it began before, and is not over"
        );
        assert!(!gaps[0].overlaps(110_503, 110_600));
    }
}

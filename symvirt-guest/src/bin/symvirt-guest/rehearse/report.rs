//! The summary of a rehearsal, for people and as JSON.

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;

use serde::Serialize;
use symvirt_inspect::finding::Finding;

use super::record::Switch;

/// The summary of a rehearsal.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) passed: bool,
    pub job_exit_code: Option<i32>,
    pub switches: u64,
    pub abandoned: Vec<String>,
    pub failed: Vec<String>,
    pub ranks_lost: Vec<String>,
    /// How often the coordinator was replaced in the middle of a switch.
    pub(super) forgotten: u64,
    /// How often the agent was.
    pub(super) agents_lost: u64,
    /// What of the job cannot be moved, and what mends it.
    pub findings: BTreeSet<Finding>,
    pub(super) transports: Vec<(String, u64)>,
    pub(super) orders: Vec<Times>,
}

/// Distributions in microseconds, for one order.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    order: &'static str,
    switches: usize,
    /// Per switch: the longest stall of any rank.
    job_stall_us: Spread,
    /// Per rank and switch.
    rank_stall_us: Spread,
    gate_us: Spread,
    counters_us: Spread,
    drain_us: Spread,
    repost_us: Spread,
    /// Per switch: from its start until the new transport is ready; in the background if it is made
    /// before the old one is broken.
    prepare_us: Spread,
    /// Per switch: the slowest rank's release of the old transport, in the background.
    release_us: Spread,
    /// Per switch: from its start to the last release.
    switch_us: Spread,
    /// Per switch, out of band: frames and bytes on the sockets of all ranks together.
    rank_frames: Spread,
    rank_bytes: Spread,
    /// Per switch, out of band: frames and bytes between the agent and the coordinator.
    guest_frames: Spread,
    guest_bytes: Spread,
    drained_messages: u64,
    drained_bytes: u64,
    /// The most bytes that one rank kept in its spool.
    spool_peak: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
struct Spread {
    median: u64,
    p99: u64,
    max: u64,
}

impl Spread {
    fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let at = |numerator: usize, denominator: usize| {
            let rank = (values.len() * numerator).div_ceil(denominator).max(1);
            values.get(rank - 1).copied().unwrap_or(0)
        };
        Spread {
            median: at(1, 2),
            p99: at(99, 100),
            max: at(1, 1),
        }
    }
}

impl Times {
    pub fn of(order: &'static str, switches: &[&Switch]) -> Self {
        let stalls = || switches.iter().flat_map(|switch| &switch.stalls);
        let longest = |switch: &&Switch| {
            switch
                .stalls
                .iter()
                .map(|stall| stall.total_us)
                .max()
                .unwrap_or(0)
        };
        Times {
            order,
            switches: switches.len(),
            job_stall_us: Spread::of(switches.iter().map(longest)),
            rank_stall_us: Spread::of(stalls().map(|stall| stall.total_us)),
            gate_us: Spread::of(stalls().map(|stall| stall.gate_us)),
            counters_us: Spread::of(stalls().map(|stall| stall.counters_us)),
            drain_us: Spread::of(stalls().map(|stall| stall.drain_us)),
            repost_us: Spread::of(stalls().map(|stall| stall.repost_us)),
            prepare_us: Spread::of(switches.iter().map(|switch| switch.prepare_us)),
            release_us: Spread::of(switches.iter().map(|switch| switch.release_us)),
            switch_us: Spread::of(switches.iter().map(|switch| switch.total_us)),
            rank_frames: Spread::of(switches.iter().map(|switch| switch.volumes.ranks.frames)),
            rank_bytes: Spread::of(switches.iter().map(|switch| switch.volumes.ranks.bytes)),
            guest_frames: Spread::of(switches.iter().map(|switch| switch.volumes.guest.frames)),
            guest_bytes: Spread::of(switches.iter().map(|switch| switch.volumes.guest.bytes)),
            drained_messages: stalls().map(|stall| stall.drained_messages).sum(),
            drained_bytes: stalls().map(|stall| stall.drained_bytes).sum(),
            spool_peak: stalls()
                .map(|stall| stall.spool_peak)
                .max()
                .unwrap_or_default(),
        }
    }
}

impl Report {
    /// 0 only if the job passed, was switched at least once, and lost no rank.
    pub fn exit_code(&self) -> ExitCode {
        match (self.passed, self.job_exit_code) {
            (true, _) => ExitCode::SUCCESS,
            (false, Some(code)) if code != 0 => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            (false, _) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nrehearsal    {}",
            if self.passed { "PASSED" } else { "FAILED" }
        )?;
        match self.job_exit_code {
            Some(code) => writeln!(f, "job          exit code {code}")?,
            None => writeln!(f, "job          left running")?,
        }
        let to = self
            .transports
            .iter()
            .map(|(name, count)| format!("{count} to {name}"));
        let to = to.collect::<Vec<_>>().join(", ");
        write!(f, "switches     {} done", self.switches)?;
        if !to.is_empty() {
            write!(f, " ({to})")?;
        }
        writeln!(
            f,
            ", {} abandoned, {} failed",
            self.abandoned.len(),
            self.failed.len()
        )?;
        let once = |reasons: &[String]| {
            let mut reasons = reasons.to_vec();
            reasons.sort();
            reasons.dedup();
            reasons
        };
        for reason in once(&self.abandoned) {
            writeln!(f, "  abandoned: {reason}")?;
        }
        for reason in once(&self.failed) {
            writeln!(f, "  failed: {reason}")?;
        }
        for rank in once(&self.ranks_lost) {
            writeln!(f, "  lost: {rank}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  cannot be moved: {finding}")?;
        }
        if self.switches == 0 {
            writeln!(
                f,
                "  no switch happened: did the processes use UCX? `symvirt-guest doctor -- …` looks"
            )?;
        }
        self.orders.iter().try_for_each(|times| times.fmt(f))
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<22}{:>10}{:>10}{:>10}   ms",
            self.order, "median", "p99", "max"
        )?;
        let rows = [
            ("  job stall", self.job_stall_us),
            ("  rank stall", self.rank_stall_us),
            ("    gate", self.gate_us),
            ("    counters", self.counters_us),
            ("    drain", self.drain_us),
            ("    re-post", self.repost_us),
            ("  until prepared", self.prepare_us),
            ("  release", self.release_us),
            ("  whole switch", self.switch_us),
        ];
        let ms = |us: u64| us as f64 / 1000.0;
        for (name, spread) in rows {
            let (median, p99, max) = (ms(spread.median), ms(spread.p99), ms(spread.max));
            writeln!(f, "{name:<22}{median:>10.3}{p99:>10.3}{max:>10.3}")?;
        }
        writeln!(
            f,
            "  out of band, per switch: {} frames, {} bytes",
            self.rank_frames.median, self.rank_bytes.median
        )?;
        writeln!(
            f,
            "  drained {} messages, {} bytes, in {} switches; at most {} bytes in one rank's spool",
            self.drained_messages, self.drained_bytes, self.switches, self.spool_peak
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_values_themselves() {
        assert_eq!(
            Spread::of(1..=100),
            Spread {
                median: 50,
                p99: 99,
                max: 100
            }
        );
        assert_eq!(
            Spread::of([7].into_iter()),
            Spread {
                median: 7,
                p99: 7,
                max: 7
            }
        );
        assert_eq!(Spread::of([].into_iter()), Spread::default());
    }
}

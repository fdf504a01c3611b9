//! What happens in a rehearsal.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

use symvirt_inspect::finding::Finding;
use symvirt_protocol::gang::{Outcome, Reason};
use symvirt_protocol::rank::{Stall, SwitchOrder};

use super::report::{Report, Times};
use super::volume::Volumes;

/// Filled while the rehearsal runs.
#[derive(Debug, Default)]
pub struct Record {
    switches: Vec<Switch>,
    current: Option<Switch>,
    abandoned: Vec<String>,
    failed: Vec<String>,
    lost: Vec<String>,
    /// How often the coordinator was replaced in the middle of a switch.
    pub forgotten: u64,
    /// How often the agent was.
    pub agents_lost: u64,
}

/// A switch, as it was measured.
#[derive(Debug)]
pub(super) struct Switch {
    to: String,
    order: SwitchOrder,
    begun: Instant,
    pub prepare_us: u64,
    pub stalls: Vec<Stall>,
    pub release_us: u64,
    pub total_us: u64,
    /// What went out of band: before it began, then for it.
    pub volumes: Volumes,
}

fn since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Record {
    /// A switch begins.
    pub fn begin(&mut self, to: &str, order: SwitchOrder, before: Volumes) {
        self.current = Some(Switch {
            to: to.to_owned(),
            order,
            begun: Instant::now(),
            prepare_us: 0,
            stalls: Vec::new(),
            release_us: 0,
            total_us: 0,
            volumes: before,
        });
    }

    /// Switches that took effect.
    pub fn done(&self) -> u64 {
        self.switches.len() as u64
    }

    /// Something came of it.
    pub fn note(&mut self, outcome: &Outcome, volumes: Volumes) {
        match outcome {
            Outcome::Voted { .. } => {
                if let Some(switch) = &mut self.current {
                    switch.prepare_us = since(switch.begun);
                }
            }
            // Break-before-make: the stalls are complete when the gates are open again.
            Outcome::Committed { stalls, .. } | Outcome::Opened { stalls, .. } => {
                if let Some(switch) = &mut self.current {
                    switch.stalls = stalls.iter().map(|stall| stall.stall).collect();
                }
                if let Outcome::Opened { .. } = outcome {
                    self.complete(volumes);
                }
            }
            Outcome::Released { slowest_us, .. } => {
                self.release_took(*slowest_us);
                self.complete(volumes);
            }
            Outcome::Held { slowest_us, .. } => self.release_took(*slowest_us),
            Outcome::Aborted { held: true, .. } => {}
            Outcome::Aborted { reason, .. } => self.abandoned.push(reason.to_string()),
            Outcome::Failed { reason, .. } => {
                self.failed.push(reason.to_string());
                if let Reason::Died { rank, .. } = reason {
                    self.lost.push(rank.to_string());
                }
            }
            Outcome::RankDied { rank } => self.lost.push(rank.to_string()),
        }
    }

    fn release_took(&mut self, slowest_us: u64) {
        if let Some(switch) = &mut self.current {
            switch.release_us = slowest_us;
        }
    }

    fn complete(&mut self, volumes: Volumes) {
        if let Some(mut switch) = self.current.take() {
            switch.total_us = since(switch.begun);
            switch.volumes = volumes - switch.volumes;
            // A gang without ranks has nothing to show.
            if !switch.stalls.is_empty() {
                self.switches.push(switch);
            }
        }
    }

    /// The summary; `status` is the job's, none if it was left running.
    pub fn report(
        &self,
        status: Option<ExitStatus>,
        ended_by_us: bool,
        findings: BTreeSet<Finding>,
    ) -> Report {
        let code = status.map(|status| {
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
        });
        let of = |order| -> Vec<&Switch> {
            self.switches
                .iter()
                .filter(|switch| switch.order == order)
                .collect()
        };
        let orders = [
            ("make-before-break", of(SwitchOrder::MakeBeforeBreak)),
            ("break-before-make", of(SwitchOrder::BreakBeforeMake)),
        ];
        let orders = orders
            .into_iter()
            .filter(|(_, switches)| !switches.is_empty());
        Report {
            passed: code == Some(0)
                && !ended_by_us
                && !self.switches.is_empty()
                && self.lost.is_empty()
                && self.failed.is_empty()
                && findings.is_empty(),
            job_exit_code: code,
            switches: self.done(),
            abandoned: self.abandoned.clone(),
            failed: self.failed.clone(),
            ranks_lost: self.lost.clone(),
            findings,
            forgotten: self.forgotten,
            agents_lost: self.agents_lost,
            transports: self.per_transport(),
            orders: orders
                .map(|(name, switches)| Times::of(name, &switches))
                .collect(),
        }
    }

    fn per_transport(&self) -> Vec<(String, u64)> {
        let mut counts: Vec<(String, u64)> = Vec::new();
        for switch in &self.switches {
            match counts.iter_mut().find(|(name, _)| *name == switch.to) {
                Some((_, count)) => *count += 1,
                None => counts.push((switch.to.clone(), 1)),
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_was_never_switched_does_not_pass() {
        let report =
            Record::default().report(Some(ExitStatus::from_raw(0)), false, BTreeSet::new());
        assert!(!report.passed);
        assert!(report.to_string().contains("no switch happened"));
    }

    #[test]
    fn a_lost_rank_does_not_pass_even_if_the_launcher_says_so() {
        let mut record = Record::default();
        record.lost.push("rank 1".to_owned());
        let report = record.report(Some(ExitStatus::from_raw(0)), false, BTreeSet::new());
        assert!(!report.passed);
    }
}

//! One crossing of the demo, with what was seen of the job before, during and after.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use symvirt_host::api::model::OperationInfo;
use symvirt_host::operation::Phase;

use super::claims::Claims;
use crate::crossing::{Crossing, Order, cross};
use crate::lab::Lab;
use crate::stall::Gap;
use crate::traffic::{Traffic, Transport};

/// Time for a job's transport to show in the counters.
const SHOWS: Duration = Duration::from_secs(90);
/// Slows the copy down to what makes it visible, in bytes per second.
pub(super) const BANDWIDTH: u64 = 64 << 20;
const OPTIONS: &[&str] = &["--bandwidth", "64MiB"];

/// One crossing.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Leg {
    /// The job.
    pub job: &'static str,
    /// What the daemon did.
    pub crossing: Crossing,
    /// Transport seen before it began.
    pub before: Option<Transport>,
    /// Transport seen while the VMs were copied; not seen if the job only computed then.
    pub during: Option<Transport>,
    /// Transport seen after it had ended.
    pub after: Option<Transport>,
    /// The longest stall that the job itself saw at each moment at which it was stopped, where it
    /// is the probe.
    pub stalls: Vec<(Phase, Duration)>,
    /// The longest gaps of all the way.
    pub gaps: Vec<Gap>,
}

/// What is asked of a leg.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trip<'a> {
    /// The job.
    pub job: &'static str,
    /// Host where the gang is.
    pub from: &'a str,
    /// Host where it is to be.
    pub to: &'a str,
    /// `live` or `hold`.
    pub mode: &'a str,
    /// What the job uses on host a.
    pub at_home: Transport,
}

impl Leg {
    /// Takes the gang across and notes what must be true of it.
    pub fn travel(
        lab: &Lab,
        traffic: &Traffic,
        trip: Trip<'_>,
        claims: &mut Claims,
    ) -> anyhow::Result<Self> {
        let Trip {
            job,
            from,
            to,
            mode,
            at_home,
        } = trip;
        let expected = |host: &str| match host {
            "a" => at_home,
            _ => Transport::Tcp,
        };
        let source = lab.host(from).context("no such host")?;
        println!("  {job}: {from} → {to}, {mode}");
        let before = seen(traffic, expected(from));
        let order = Order {
            from: source,
            to,
            mode,
            options: OPTIONS,
        };
        let mut show = Show::default();
        let crossing = cross(&order, &mut |info| show.state(info))?;
        show.end();
        if !crossing.is_done() {
            bail!(
                "{from} → {to} ended {}: {}",
                crossing.last.phase,
                crossing
                    .last
                    .reason
                    .as_deref()
                    .unwrap_or("without a reason")
            );
        }
        let during = crossing
            .phase(Phase::Copy)
            .and_then(|(from, to)| traffic.transport_between(from, to));
        let after = seen(traffic, expected(to));
        let leg = Self {
            job,
            crossing,
            before,
            during,
            after,
            stalls: Vec::new(),
            gaps: Vec::new(),
        };
        claims.note(
            format!("{}: done", leg.name()),
            leg.crossing.exit == Some(0),
            "",
        );
        for (when, seen, host) in [("before", leg.before, from), ("after", leg.after, to)] {
            claims.note(
                format!(
                    "{}: the job communicated over {} {when}",
                    leg.name(),
                    expected(host)
                ),
                seen == Some(expected(host)),
                seen.map_or_else(|| "no traffic".into(), |seen| format!("counted: {seen}")),
            );
        }
        Ok(leg)
    }

    /// The job stall, if the job measured it.
    pub fn stall(&self) -> Option<Duration> {
        let seen = self.stalls.iter().map(|(_, stall)| *stall);
        (!self.stalls.is_empty()).then(|| seen.sum())
    }

    /// For people.
    pub fn name(&self) -> String {
        let Crossing { from, to, mode, .. } = &self.crossing;
        format!("{} {from} → {to} {mode}", self.job)
    }
}

/// What it uses: the expected, if that shows within the limit.
fn seen(traffic: &Traffic, expected: Transport) -> Option<Transport> {
    match traffic.wait_for(expected, SHOWS) {
        Ok(()) => Some(expected),
        Err(other) => other,
    }
}

/// Live progress: one line, redrawn on a terminal; else a line for each phase.
#[derive(Default)]
struct Show {
    phase: Option<Phase>,
    drawn: bool,
}

impl Show {
    fn state(&mut self, info: &OperationInfo) {
        let terminal = std::io::stdout().is_terminal();
        let fresh = self.phase != Some(info.phase);
        if !terminal && !fresh {
            return;
        }
        self.phase = Some(info.phase);
        let transport = info.progress.interconnect;
        let transport = transport.map_or_else(|| "-".to_owned(), |target| target.to_string());
        let vms: Vec<String> = info
            .progress
            .vms
            .iter()
            .map(|vm| {
                format!(
                    "{} {:.0} MiB left",
                    vm.vm,
                    vm.copy.remaining as f64 / 1048576.0
                )
            })
            .collect();
        let line = format!("    {:<14} {:<9} {}", info.phase, transport, vms.join(", "));
        if terminal {
            let end = if fresh && self.drawn {
                "\n"
            } else {
                "\r\x1b[2K"
            };
            print!("{end}{line}");
            std::io::stdout().flush().ok();
            self.drawn = true;
        } else {
            println!("{}", line.trim_end());
        }
    }

    fn end(&self) {
        if self.drawn {
            println!();
        }
    }
}

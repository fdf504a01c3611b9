//! The job stall, from inside a job: a ping-pong that times every exchange crosses and returns,
//! first plainly, then live.
//!
//! *Plainly*: the same program in the same VMs, without the library, over TCP from its beginning,
//! so that QEMU migrates it with nobody's help. What that costs is the measure for the live moves.
//!
//! The stall of a live move is the sum of the longest gaps that the job saw at each moment at
//! which it is stopped: the switch off the HCA, the switchover (with the standstill of the VM that
//! measures, which its own clock misses), the switch onto the HCA.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use symvirt_host::operation::Phase;

use super::claims::Claims;
use super::leg::{Leg, Trip};
use super::{BEGINS, tail, wait_for};
use crate::crossing::Crossing;
use crate::job::{Job, Outcome};
use crate::lab::Lab;
use crate::stall::{self, ClockOffset, Gap};
use crate::traffic::{Traffic, Transport};

/// Gaps that the probe reports: as many as it keeps, so that the short ones of switches are
/// among them.
const GAPS: u32 = 1000;
/// How long the probe would communicate if it were not told to end.
const TIME: Duration = Duration::from_secs(1800);
/// Around a phase, for the difference of the clocks.
const SLACK_MS: u64 = 300;

/// The bound that a live move is held to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bound {
    /// The live move.
    leg: String,
    /// What the job saw.
    stall: Duration,
    /// Downtime of the plain migration in the same direction, as QEMU counts it: the VM that
    /// stood longest, without its wait for the other.
    plain_downtime: Duration,
    /// What the job saw of the plain migration.
    plain_stall: Duration,
    /// The longest stall of a rank in a switch of the live move.
    switch: Duration,
    /// 1.2 × `plain_downtime` + 2 × `switch`.
    bound: Duration,
    /// `stall` in parts of `bound`.
    ratio: f64,
}

/// Both rounds, and how they compare.
///
/// # Errors
/// If a crossing does not end as asked, or a probe does not end.
pub(super) fn run(
    lab: &Lab,
    traffic: &Traffic,
    claims: &mut Claims,
    legs: &mut Vec<Leg>,
) -> anyhow::Result<Vec<Bound>> {
    println!("\nstall probe: a steady ping-pong that times every exchange");
    let program = format!(
        "/opt/symvirt/apps/stall_probe --seconds {} --gaps {GAPS}",
        TIME.as_secs()
    );
    let job = Job::start_plainly(&lab.guests, &program)?;
    let plain = round(lab, traffic, claims, "plain", job, Transport::Tcp)?;
    let job = Job::start(&lab.guests, &program)?;
    let live = round(lab, traffic, claims, "probe", job, Transport::Rdma)?;
    for leg in &live {
        claims.note(
            format!(
                "{}: the job communicated over TCP during the copy",
                leg.name()
            ),
            leg.during == Some(Transport::Tcp),
            "",
        );
    }
    let bounds: Vec<Bound> = live
        .iter()
        .zip(&plain)
        .filter_map(|(live, plain)| Bound::of(live, plain))
        .collect();
    claims.note(
        "the stalls of all moves were measured",
        bounds.len() == live.len(),
        "",
    );
    for bound in &bounds {
        claims.report(bound.to_string());
    }
    legs.extend(plain.into_iter().chain(live));
    Ok(bounds)
}

/// There and back.
fn round(
    lab: &Lab,
    traffic: &Traffic,
    claims: &mut Claims,
    name: &'static str,
    mut job: Job,
    at_home: Transport,
) -> anyhow::Result<Vec<Leg>> {
    wait_for(at_home, &mut job, traffic)?;
    let mut legs = Vec::new();
    let mut offsets = Vec::new();
    for (from, to) in [("a", "b"), ("b", "a")] {
        offsets.push(ClockOffset::of(&lab.guests[0])?);
        let trip = Trip {
            job: name,
            from,
            to,
            mode: "live",
            at_home,
        };
        legs.push(Leg::travel(lab, traffic, trip, claims)?);
    }
    job.finish("stall_probe")?;
    let outcome = job.wait(BEGINS).context("the probe does not end")?;
    for (leg, offset) in legs.iter_mut().zip(offsets) {
        let gaps = stall::gaps(&outcome.output, offset);
        leg.stalls = at_moments(&leg.crossing, &gaps);
        let way = leg.crossing.began_ms..=leg.crossing.ended_ms;
        leg.gaps = gaps
            .into_iter()
            .filter(|gap| way.contains(&gap.at_ms))
            .collect();
    }
    verified(name, &outcome, claims);
    Ok(legs)
}

fn verified(name: &str, outcome: &Outcome, claims: &mut Claims) {
    let said = outcome
        .output
        .iter()
        .any(|line| line.starts_with("OK stall_probe"));
    let well = outcome.success && said;
    claims.note(
        format!("{name}: every message verified, exit status 0"),
        well,
        if well {
            String::new()
        } else {
            tail(&outcome.output)
        },
    );
}

/// The longest gap at each moment at which the job is stopped.
fn at_moments(crossing: &Crossing, gaps: &[Gap]) -> Vec<(Phase, Duration)> {
    let mut stalls = Vec::new();
    for phase in [Phase::LeaveHca, Phase::SwitchOver, Phase::TakeHca] {
        let Some((from, to)) = crossing.phase(phase) else {
            continue;
        };
        // A VM stands from the end of the copy on, until the last one is ready.
        let waited = crossing.longest_wait().as_millis() as u64;
        let from = from.saturating_sub(match phase {
            Phase::SwitchOver => waited + SLACK_MS,
            _ => SLACK_MS,
        });
        let inside = gaps.iter().filter(|gap| gap.overlaps(from, to + SLACK_MS));
        if let Some(gap) = inside.max_by_key(|gap| gap.length) {
            let missed = match phase {
                Phase::SwitchOver => crossing.standstill_of("g1"),
                _ => Duration::ZERO,
            };
            stalls.push((phase, gap.with_standstill(missed)));
        }
    }
    stalls
}

impl Bound {
    fn of(live: &Leg, plain: &Leg) -> Option<Self> {
        let plain_downtime = plain.crossing.own_downtime()?;
        let switch = live.crossing.switch_stalls().into_iter().max()?;
        let bound = plain_downtime.mul_f64(1.2) + 2 * switch;
        let stall = live.stall()?;
        Some(Self {
            leg: live.name(),
            stall,
            plain_downtime,
            plain_stall: plain.stall()?,
            switch,
            bound,
            ratio: stall.as_secs_f64() / bound.as_secs_f64(),
        })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{}: job stall {:.1} ms, {:.2} of 1.2 × plain downtime {:.1} ms + 2 × switch {:.1} ms \
             = {:.1} ms (a plain migration stalls it for {:.1} ms)",
            self.leg,
            ms(self.stall),
            self.ratio,
            ms(self.plain_downtime),
            ms(self.switch),
            ms(self.bound),
            ms(self.plain_stall),
        )
    }
}

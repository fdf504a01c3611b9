//! The job stall, from inside a job: a ping-pong that times every exchange crosses and returns.
//!
//! The stall of a move is the sum of the longest gaps that the job saw at each moment at which it
//! is stopped: the switch off the HCA, the switchover (with the standstill of the VM that
//! measures, which its own clock misses), the switch onto the HCA. What [`super::plain`] saw of
//! QEMU alone is the measure.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use symvirt_host::operation::Phase;

use super::claims::Claims;
use super::leg::{Leg, Trip};
use super::plain::PlainMove;
use super::{tail, wait_for};
use crate::crossing::Crossing;
use crate::job::{Job, Mpi, Outcome};
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

/// For the probe to end when it is told to.
pub(super) const ENDS: Duration = super::BEGINS;

/// The bound that a live move is held to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bound {
    /// The live move.
    leg: String,
    /// What the job saw.
    stall: Duration,
    /// Downtime of QEMU alone in the same direction.
    plain_downtime: Duration,
    /// What the job saw of QEMU alone.
    plain_stall: Duration,
    /// The longest stall of a rank in a switch of the live move.
    switch: Duration,
    /// 1.2 × `plain_downtime` + 2 × `switch`.
    bound: Duration,
    /// `stall` in parts of `bound`.
    ratio: f64,
}

/// How the probe is run.
pub(super) fn program() -> String {
    format!(
        "/opt/symvirt/apps/stall_probe --seconds {} --gaps {GAPS}",
        TIME.as_secs()
    )
}

/// There and back, live, and how that compares with `plain`.
///
/// # Errors
/// If a crossing does not end as asked, or the probe does not end.
pub(super) fn run(
    lab: &Lab,
    traffic: &Traffic,
    claims: &mut Claims,
    legs: &mut Vec<Leg>,
    plain: &[PlainMove],
) -> anyhow::Result<Vec<Bound>> {
    println!("\nstall probe: a steady ping-pong that times every exchange");
    let job = Job::start(&lab.guests, Mpi::OpenMpi, &program())?;
    let live = round(lab, traffic, claims, job)?;
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
        .zip(plain)
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
    legs.extend(live);
    Ok(bounds)
}

/// There and back.
fn round(
    lab: &Lab,
    traffic: &Traffic,
    claims: &mut Claims,
    mut job: Job,
) -> anyhow::Result<Vec<Leg>> {
    wait_for(Transport::Rdma, &mut job, traffic)?;
    let mut legs = Vec::new();
    let mut offsets = Vec::new();
    for (from, to) in [("a", "b"), ("b", "a")] {
        offsets.push(ClockOffset::of(&lab.guests[0])?);
        let trip = Trip {
            job: "probe",
            from,
            to,
            mode: "live",
            at_home: Transport::Rdma,
        };
        legs.push(Leg::travel(lab, traffic, trip, claims)?);
    }
    job.finish("stall_probe")?;
    let outcome = job.wait(ENDS).context("the probe does not end")?;
    for (leg, offset) in legs.iter_mut().zip(offsets) {
        let gaps = stall::gaps(&outcome.output, offset);
        leg.stalls = at_moments(&leg.crossing, &gaps);
        let way = leg.crossing.began_ms..=leg.crossing.ended_ms;
        leg.gaps = gaps
            .into_iter()
            .filter(|gap| way.contains(&gap.at_ms))
            .collect();
    }
    verified("probe", &outcome, claims);
    Ok(legs)
}

/// Whether the probe says that all went well.
pub(super) fn verified(name: &str, outcome: &Outcome, claims: &mut Claims) {
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
    fn of(live: &Leg, plain: &PlainMove) -> Option<Self> {
        let switch = live.crossing.switch_stalls().into_iter().max()?;
        let bound = plain.downtime.mul_f64(1.2) + 2 * switch;
        let stall = live.stall()?;
        Some(Self {
            leg: live.name(),
            stall,
            plain_downtime: plain.downtime,
            plain_stall: plain.stall,
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
            "{}: job stall {:.1} ms, {:.2} of 1.2 × downtime by QEMU alone {:.1} ms + 2 × switch \
             {:.1} ms = {:.1} ms (QEMU alone stalls it for {:.1} ms)",
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

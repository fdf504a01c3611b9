//! `cargo xtask demo`: an unmodified MPI job goes from RDMA to Ethernet and back, live, and never
//! notices; then once more, held.
//!
//! ```text
//!            a (HCAs)                 b (Ethernet only)
//!  probe     ●────────── live ──────────►●
//!            ●◄───────── live ───────────●
//!  hpcc      ●────────── live ──────────►●   its first benchmarks
//!            ●◄───────── live ───────────●   HPL
//!            ●────────── hold ──────────►●   HPL
//!            ●◄───────── hold ───────────●   HPL, and its residuals must be right
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`claims`] | what the table says, and whether it was observed |
//! | [`hpl`] | hpcc from Debian, its input, its verdict |
//! | [`leg`] | one crossing with what was seen of the job before, during and after |
//! | [`table`] | the table at the end |
//! | [`timeline`] | the same as picture and JSON |
//!
//! The demo measures from outside: the job's own output, the guests' kernels, QEMU's numbers.

mod claims;
mod hpl;
mod leg;
mod table;
mod timeline;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::job::Job;
use crate::lab::{Lab, Plan};
use crate::lab_dir::LabDir;
use crate::stall::{self, ClockOffset};
use crate::traffic::{Traffic, Transport};
use claims::Claims;
use leg::Leg;

/// Time for a job to be seen communicating.
const BEGINS: Duration = Duration::from_secs(120);
/// Time for hpcc to end after the last crossing.
const ENDS: Duration = Duration::from_secs(1500);
/// Gaps of the ping-pong that the probe reports: enough to hold those of all crossings.
const GAPS: u32 = 200;
/// How long the probe would communicate if it were not told to end.
const PROBE: Duration = Duration::from_secs(1800);

/// Runs the demo; `Ok(true)` if every claim was observed.
///
/// # Errors
/// If it cannot be carried to its end. The bed is removed in any case.
pub fn run() -> anyhow::Result<bool> {
    let begun = Instant::now();
    println!("SymVirt demo: hpcc from Debian, two guests, host a with HCAs, host b without");
    let lab = Lab::up(&Plan::crossing(), &|line| println!("  {line}"))?;
    let mut claims = Claims::default();
    let result = act(&lab, &mut claims);
    if result.is_err() || !claims.all_observed() {
        println!("logs are kept in {}", lab.keep_logs()?.display());
    }
    let left = lab.down()?;
    claims.note(
        "nothing is left behind on this machine",
        left.is_empty(),
        left.join(", "),
    );
    let (legs, traffic) = result?;

    let out = LabDir::open()?.part("out")?;
    timeline::write(&out, &legs, &traffic)?;
    println!("\n{}", table::render(&legs));
    print!("{claims}");
    println!(
        "timeline: {0}/timeline.svg, {0}/timeline.json",
        out.display()
    );
    println!(
        "{} in {:.0} s",
        if claims.all_observed() {
            "PASSED"
        } else {
            "FAILED"
        },
        begun.elapsed().as_secs_f64()
    );
    Ok(claims.all_observed())
}

type Observed = (Vec<Leg>, Vec<crate::traffic::Sample>);

fn act(lab: &Lab, claims: &mut Claims) -> anyhow::Result<Observed> {
    for guest in &lab.guests {
        guest
            .wait_until(
                "rdma link show | grep -q 'state ACTIVE'",
                Duration::from_secs(60),
            )
            .context("wait for the HCAs' links")?;
    }
    println!("  HCAs are plugged, links are active");
    let traffic = Traffic::observe(&lab.guests)?;
    let mut legs = Vec::new();
    probe(lab, &traffic, claims, &mut legs)?;
    hpcc(lab, &traffic, claims, &mut legs)?;
    let samples = traffic.samples();
    Ok((legs, samples))
}

/// A ping-pong that times every exchange crosses and returns: the job stall, from inside the job.
fn probe(
    lab: &Lab,
    traffic: &Traffic,
    claims: &mut Claims,
    legs: &mut Vec<Leg>,
) -> anyhow::Result<()> {
    println!("\nstall probe: a steady ping-pong that times every exchange");
    let program = format!(
        "/opt/symvirt/apps/stall_probe --seconds {} --gaps {GAPS}",
        PROBE.as_secs()
    );
    let mut job = Job::start(&lab.guests, &program)?;
    wait_for_rdma(&mut job, traffic)?;
    let first = legs.len();
    let mut offsets = Vec::new();
    for (from, to) in [("a", "b"), ("b", "a")] {
        offsets.push(ClockOffset::of(&lab.guests[0])?);
        legs.push(Leg::travel(
            lab, traffic, "probe", from, to, "live", claims,
        )?);
    }
    for leg in &legs[first..] {
        claims.note(
            format!(
                "{}: the job communicated over TCP during the copy",
                leg.name()
            ),
            leg.during == Some(Transport::Tcp),
            "",
        );
    }
    job.finish("stall_probe")?;
    let outcome = job.wait(BEGINS).context("the probe does not end")?;
    let verified = outcome
        .output
        .iter()
        .any(|line| line.starts_with("OK stall_probe"));
    for (leg, offset) in legs[first..].iter_mut().zip(offsets) {
        let gaps = stall::gaps(&outcome.output, offset);
        leg.seen_stall = stall::longest(&gaps, leg.crossing.began_ms, leg.crossing.ended_ms)
            .map(|gap| gap.with_standstill(leg.crossing.downtime().unwrap_or_default()));
    }
    claims.note(
        "probe: every message verified, exit status 0",
        outcome.success && verified,
        if outcome.success && verified {
            String::new()
        } else {
            tail(&outcome.output)
        },
    );
    Ok(())
}

/// hpcc, unmodified, in a live and in a held round.
fn hpcc(
    lab: &Lab,
    traffic: &Traffic,
    claims: &mut Claims,
    legs: &mut Vec<Leg>,
) -> anyhow::Result<()> {
    println!("\nhpcc (Debian's package, unmodified)");
    hpl::prepare(&lab.guests[0])?;
    let mut job = Job::start(&lab.guests, hpl::PROGRAM)?;
    wait_for_rdma(&mut job, traffic)?;
    for (from, to, mode) in [
        ("a", "b", "live"),
        ("b", "a", "live"),
        ("a", "b", "hold"),
        ("b", "a", "hold"),
    ] {
        if !job.is_running() {
            let said = tail(&job.output());
            bail!("hpcc has ended before the crossing: {said}");
        }
        legs.push(Leg::travel(lab, traffic, "hpcc", from, to, mode, claims)?);
        if legs.last().is_some_and(|leg| leg.crossing.to == "b") && mode == "live" {
            println!("  hpcc goes on to HPL");
            lab.guests[0]
                .wait_until(hpl::BEGINS, ENDS)
                .context("hpcc does not come to HPL")?;
        }
    }
    println!("  hpcc runs to its end");
    let outcome = job.wait(ENDS).context("hpcc does not end")?;
    claims.note(
        "hpcc: exit status 0",
        outcome.success,
        if outcome.success {
            String::new()
        } else {
            tail(&outcome.output)
        },
    );
    let verdict = hpl::verdict(&lab.guests[0])?;
    claims.note(
        "hpcc: every residual check of HPL says PASSED",
        verdict.is_good(),
        verdict.to_string(),
    );
    Ok(())
}

fn wait_for_rdma(job: &mut Job, traffic: &Traffic) -> anyhow::Result<()> {
    if let Err(seen) = traffic.wait_for(Transport::Rdma, BEGINS) {
        bail!(
            "the job was to communicate over RDMA, seen: {seen:?}; running: {}; it says: {}",
            job.is_running(),
            tail(&job.output())
        );
    }
    println!("  it communicates over RDMA");
    Ok(())
}

fn tail(lines: &[String]) -> String {
    let from = lines.len().saturating_sub(8);
    lines[from..].join("\n      ")
}

//! `cargo xtask demo`: an unmodified MPI job goes from RDMA to Ethernet and back, live, and never
//! notices; then once more, held.
//!
//! ```text
//!            a (HCAs)                 b (Ethernet only)
//!  plain     ●──────── QEMU alone ──────►●   without SymVirt: the measure
//!            ●◄─────── QEMU alone ───────●
//!  probe     ●────────── live ──────────►●   the job stall
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
//! | [`plain`] | the same VMs and job, moved by QEMU alone |
//! | [`probe`] | the job stall, and how it compares with QEMU alone |
//! | [`table`] | the table at the end |
//! | [`timeline`] | the same as picture and JSON |
//!
//! The demo measures from outside: the job's own output, the guests' kernels, QEMU's numbers.

mod claims;
mod hpl;
mod leg;
mod plain;
mod probe;
mod table;
mod timeline;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::job::{Job, Mpi, Outcome};
use crate::lab::guest::Guest;
use crate::lab::{Lab, Plan};
use crate::lab_dir::LabDir;
use crate::traffic::{Sample, Traffic, Transport};
use claims::Claims;
use leg::{Leg, Trip};
use plain::PlainMove;
use probe::Bound;

/// Time for a job to be seen communicating.
const BEGINS: Duration = Duration::from_secs(120);
/// Time for hpcc to end after the last crossing.
const ENDS: Duration = Duration::from_secs(1500);
/// How often it is told how far hpcc is.
const TELLS: Duration = Duration::from_secs(20);

/// How much of the demo is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// All of it.
    Whole,
    /// The stall probe only.
    Probe,
}

/// Runs the demo; `Ok(true)` if every claim was observed.
///
/// # Errors
/// If it cannot be carried to its end. The bed is removed in any case.
pub fn run(act: Act) -> anyhow::Result<bool> {
    let begun = Instant::now();
    println!("SymVirt demo: hpcc from Debian, two guests, host a with HCAs, host b without");
    let mut lab = Lab::up_without_guests(&Plan::crossing(), &|line| println!("  {line}"))?;
    let mut claims = Claims::default();
    let result = play(&mut lab, act, &mut claims);
    if result.is_err() || !claims.all_observed() {
        println!("logs are kept in {}", lab.keep_logs()?.display());
    }
    let left = lab.down()?;
    claims.note(
        "nothing is left behind on this machine",
        left.is_empty(),
        left.join(", "),
    );
    let observed = result?;

    let out = LabDir::open()?.part("out")?;
    timeline::write(&out, &observed)?;
    println!("\n{}", table::render(&observed.plain, &observed.legs));
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

/// What the acts brought.
#[derive(Serialize)]
struct Observed {
    plain: Vec<PlainMove>,
    legs: Vec<Leg>,
    bounds: Vec<Bound>,
    samples: Vec<Sample>,
}

fn play(lab: &mut Lab, act: Act, claims: &mut Claims) -> anyhow::Result<Observed> {
    let (plain, outcome) = plain::run(lab)?;
    probe::verified("QEMU alone", &outcome, claims);

    println!("\nSymVirt: two guests under the daemon of host a, each with an HCA");
    lab.start_guests(&|line| println!("  {line}"))?;
    let lab = &*lab;
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
    let bounds = probe::run(lab, &traffic, claims, &mut legs, &plain)?;
    if act == Act::Whole {
        hpcc(lab, &traffic, claims, &mut legs)?;
    }
    let samples = traffic.samples();
    Ok(Observed {
        plain,
        legs,
        bounds,
        samples,
    })
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
    let mut job = Job::start(&lab.guests, Mpi::OpenMpi, hpl::PROGRAM)?;
    wait_for(Transport::Rdma, &mut job, traffic)?;
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
        let trip = Trip {
            job: "hpcc",
            from,
            to,
            mode,
            at_home: Transport::Rdma,
        };
        legs.push(Leg::travel(lab, traffic, trip, claims)?);
        if legs.last().is_some_and(|leg| leg.crossing.to == "b") && mode == "live" {
            println!("  hpcc goes on to HPL");
            lab.guests[0]
                .wait_until(hpl::BEGINS, ENDS)
                .context("hpcc does not come to HPL")?;
        }
    }
    println!("  hpcc runs to its end");
    let outcome = wait_telling(&mut job, &lab.guests[0])?;
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

/// Waits for hpcc's end, and says from time to time how far it is: HPL takes minutes.
fn wait_telling(job: &mut Job, launcher: &Guest) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    while begun.elapsed() < ENDS {
        if let Some(outcome) = job.wait(TELLS) {
            return Ok(outcome);
        }
        println!("    HPL so far: {}", hpl::verdict(launcher)?.checks());
    }
    bail!("hpcc does not end")
}

fn wait_for(transport: Transport, job: &mut Job, traffic: &Traffic) -> anyhow::Result<()> {
    if let Err(seen) = traffic.wait_for(transport, BEGINS) {
        bail!(
            "the job was to communicate over {transport}, seen: {seen:?}; running: {}; it says: {}",
            job.is_running(),
            tail(&job.output())
        );
    }
    println!("  it communicates over {transport}");
    Ok(())
}

fn tail(lines: &[String]) -> String {
    let from = lines.len().saturating_sub(8);
    lines[from..].join("\n      ")
}

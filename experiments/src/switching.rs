//! `symvirt-lab bench switch`: what a switch between verbs and TCP costs a job in two guests.
//!
//! Each switch is a `symvirt switch` in place: order, vote and counters take the way over guest
//! channel and daemon that they take in a crossing. Both orders alternate in one run of the job:
//! make-before-break is mode `live`, break-before-make mode `hold`.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use symvirt_host::api::model::OperationInfo;
use symvirt_host::operation::{Phase, Report};
use symvirt_protocol::rank::Stall;

use crate::command;
use crate::job::{Job, Mpi};
use crate::lab::{GANG, Lab, Plan};
use crate::traffic::{Traffic, Transport};

/// Time for links, and for a job to be seen communicating.
const SHOWS: Duration = Duration::from_secs(120);

/// The jobs, as their programs of `tests/apps` and for people.
const JOBS: [(&str, &str); 2] = [
    ("halo", "halo exchange of 8 KB"),
    ("bulk", "megabytes in flight"),
];

const ORDERS: [(&str, &str); 2] = [("live", "make-before-break"), ("hold", "break-before-make")];
const WAYS: [(&str, &str); 2] = [("fallback", "verbs to TCP"), ("native", "TCP to verbs")];

type Part = fn(&Stall) -> u64;

/// The stalls of each order and way.
type Stalls = [[Vec<Stall>; 2]; 2];

/// Switches two jobs `rounds` times off their HCAs and back, in each order, and prints where their
/// stalls went. `Ok(true)` if the jobs then end verified.
///
/// # Errors
/// The first switch that does not end as asked.
pub fn run(rounds: u32) -> anyhow::Result<bool> {
    ensure!(rounds > 0, "at least one round");
    let lab = Lab::up(&Plan::crossing(), &|line| println!("  {line}"))?;
    for guest in &lab.guests {
        guest.wait_until("rdma link show | grep -q 'state ACTIVE'", SHOWS)?;
    }
    let traffic = Traffic::observe(&lab.guests)?;
    let mut well = true;
    for (program, what) in JOBS {
        let (stalls, verified) = job(&lab, &traffic, program, rounds)?;
        well &= verified;
        show(what, &stalls);
    }
    drop(traffic);
    let left = lab.down()?;
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(well)
}

fn job(lab: &Lab, traffic: &Traffic, program: &str, rounds: u32) -> anyhow::Result<(Stalls, bool)> {
    let started = format!("/opt/symvirt/apps/{program} --seconds 3600");
    let mut job = Job::start(&lab.guests, Mpi::OpenMpi, &started)?;
    if let Err(seen) = traffic.wait_for(Transport::Rdma, SHOWS) {
        bail!("{program} was to communicate over RDMA, seen: {seen:?}");
    }
    let mut stalls = Stalls::default();
    for _ in 0..rounds {
        for (order, (mode, _)) in ORDERS.iter().enumerate() {
            for (way, (to, _)) in WAYS.iter().enumerate() {
                stalls[order][way].push(switch(lab, to, mode)?);
            }
        }
    }
    job.finish(program)?;
    let outcome = job.wait(SHOWS).context("the job does not end")?;
    let said = format!("OK {program}");
    let verified = outcome.output.iter().any(|line| line.starts_with(&said));
    let well = outcome.success && verified;
    if !well {
        let all = outcome.output.join("\n");
        println!("{program} ended {}: {all}", outcome.status);
    }
    Ok((stalls, well))
}

fn show(what: &str, stalls: &Stalls) {
    const WIDTH: usize = 30;
    println!("\n{what}, two guests, slowest rank (ms: median / p99 / max)");
    let rows: [(&str, Part); 5] = [
        ("job stall", |stall| stall.total_us),
        ("  gate", |stall| stall.gate_us),
        ("  counters", |stall| stall.counters_us),
        ("  drain", |stall| stall.drain_us),
        ("  re-post", |stall| stall.repost_us),
    ];
    for (way, (_, name)) in WAYS.iter().enumerate() {
        let [live, held] = [&stalls[0][way], &stalls[1][way]];
        println!("{:<14}{:>WIDTH$}{:>WIDTH$}", name, ORDERS[0].1, ORDERS[1].1);
        println!(
            "{:<14}{:>WIDTH$}{:>WIDTH$}",
            "switches",
            live.len(),
            held.len()
        );
        for (name, of) in rows {
            println!(
                "{name:<14}{:>WIDTH$}{:>WIDTH$}",
                spread(live, of),
                spread(held, of)
            );
        }
        let median = |stalls: &[Stall]| at(&sorted(stalls, |stall| stall.total_us), 50);
        let ratio = median(held) / median(live);
        println!("{:<14}{ratio:>WIDTH$.1}", "shorter by");
    }
}

/// A switch in place, of the gang on host a, that must end as asked.
///
/// # Errors
/// If it does not.
pub fn in_place(lab: &Lab, to: &str, mode: &str) -> anyhow::Result<Report> {
    let host = lab.host("a").context("no host a")?;
    let order = ["--json", "switch", GANG, "--to", to, "--mode", mode];
    let said = command::output(host.symvirt().args(order))?;
    let last = said.lines().next_back().context("symvirt says nothing")?;
    let ended: OperationInfo = serde_json::from_str(last).with_context(|| last.to_owned())?;
    ensure!(
        ended.phase == Phase::Done,
        "the switch to {to} ended {}: {:?}",
        ended.phase,
        ended.reason
    );
    ended.report.context("no report")
}

/// The stall of the rank that stood longest in one.
fn switch(lab: &Lab, to: &str, mode: &str) -> anyhow::Result<Stall> {
    let report = in_place(lab, to, mode)?;
    // Of a held switch, the rebuilding counts from the moment at which the gate was closed.
    let last = report.switches.last().context("nothing was switched")?;
    let slowest = last.stalls.iter().max_by_key(|rank| rank.stall.total_us);
    Ok(slowest.context("no rank was switched")?.stall)
}

/// In microseconds.
fn sorted(stalls: &[Stall], of: Part) -> Vec<u64> {
    let mut sorted: Vec<u64> = stalls.iter().map(of).collect();
    sorted.sort_unstable();
    sorted
}

/// The smallest that at least this part of all is not above, in milliseconds.
fn at(sorted: &[u64], percent: usize) -> f64 {
    let nth = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted[nth] as f64 / 1e3
}

fn spread(stalls: &[Stall], of: Part) -> String {
    let sorted = sorted(stalls, of);
    let [median, most, all] = [50, 99, 100].map(|percent| at(&sorted, percent));
    format!("{median:.3} / {most:.3} / {all:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_what_was_measured() {
        let stalls: Vec<Stall> = (1..=200)
            .rev()
            .map(|total_us| Stall {
                total_us: total_us * 1000,
                ..Stall::default()
            })
            .collect();
        let said = spread(&stalls, |stall| stall.total_us);
        assert_eq!(said, "100.000 / 198.000 / 200.000");
        let one = spread(&stalls[..1], |stall| stall.total_us);
        assert_eq!(one, "200.000 / 200.000 / 200.000");
    }
}

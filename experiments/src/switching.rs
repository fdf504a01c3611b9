//! `symvirt-lab bench switch`: what a switch between verbs and TCP costs a job in two guests.
//!
//! Each switch is a `symvirt switch` in place, make-before-break: order, vote and counters take
//! the way over guest channel and daemon that they take in a crossing. Break-before-make has no
//! order of its own in place; it is measured on one machine (`cargo xtask bench switch`) and by
//! the held crossings of the demo.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use symvirt_host::api::model::OperationInfo;
use symvirt_host::operation::Phase;
use symvirt_protocol::rank::Stall;

use crate::command;
use crate::job::Job;
use crate::lab::{GANG, Lab, Plan};
use crate::traffic::{Traffic, Transport};

/// Time for links, and for a job to be seen communicating.
const SHOWS: Duration = Duration::from_secs(120);

type Part = fn(&Stall) -> u64;

/// Switches a halo exchange `rounds` times off its HCAs and back, and prints where its stalls went.
/// `Ok(true)` if the job then ends verified.
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
    let mut job = Job::start(&lab.guests, "/opt/symvirt/apps/halo --seconds 3600")?;
    if let Err(seen) = traffic.wait_for(Transport::Rdma, SHOWS) {
        bail!("the job was to communicate over RDMA, seen: {seen:?}");
    }
    let (mut off, mut onto) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        off.push(switch(&lab, "fallback")?);
        onto.push(switch(&lab, "native")?);
    }
    println!(
        "halo exchange in two guests, make-before-break, slowest rank (ms: median / p99 / max)"
    );
    println!("{:<14}{:>30}{:>30}", "", "verbs to TCP", "TCP to verbs");
    println!("{:<14}{:>30}{:>30}", "switches", off.len(), onto.len());
    let rows: [(&str, Part); 5] = [
        ("job stall", |stall| stall.total_us),
        ("  gate", |stall| stall.gate_us),
        ("  counters", |stall| stall.counters_us),
        ("  drain", |stall| stall.drain_us),
        ("  re-post", |stall| stall.repost_us),
    ];
    for (name, of) in rows {
        println!(
            "{name:<14}{:>30}{:>30}",
            spread(&off, of),
            spread(&onto, of)
        );
    }
    job.finish("halo")?;
    let outcome = job.wait(SHOWS).context("the job does not end")?;
    let verified = outcome
        .output
        .iter()
        .any(|line| line.starts_with("OK halo"));
    if !(outcome.success && verified) {
        println!(
            "the job ended {}: {}",
            outcome.status,
            outcome.output.join("\n")
        );
    }
    drop(traffic);
    let left = lab.down()?;
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(outcome.success && verified)
}

/// The stall of the rank that stood longest.
fn switch(lab: &Lab, to: &str) -> anyhow::Result<Stall> {
    let host = lab.host("a").context("no host a")?;
    let said = command::output(host.symvirt().args(["--json", "switch", GANG, "--to", to]))?;
    let last = said.lines().next_back().context("symvirt says nothing")?;
    let ended: OperationInfo = serde_json::from_str(last).with_context(|| last.to_owned())?;
    ensure!(
        ended.phase == Phase::Done,
        "the switch to {to} ended {}: {:?}",
        ended.phase,
        ended.reason
    );
    let report = ended.report.context("no report")?;
    let stalls = report.switches.iter().flat_map(|switch| &switch.stalls);
    let slowest = stalls.max_by_key(|rank| rank.stall.total_us);
    Ok(slowest.context("no rank was switched")?.stall)
}

fn spread(stalls: &[Stall], of: Part) -> String {
    let mut sorted: Vec<u64> = stalls.iter().map(of).collect();
    sorted.sort_unstable();
    // The smallest that at least this part of all is not above.
    let at = |percent: usize| {
        let nth = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted[nth] as f64 / 1e3
    };
    format!("{:.3} / {:.3} / {:.3}", at(50), at(99), at(100))
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

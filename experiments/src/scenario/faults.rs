//! `symvirt-lab faults`: daemons, agents, ranks and QEMUs killed or standing still, and the link
//! between the hosts cut, in every phase of crossings, in an order of chance, until the time is
//! over; a table of what became of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use symvirt_host::operation::Phase;

use super::killed::{Kill, LIMIT, Victim, endures};
use super::{at_home, expect_verified};

/// Longer than any crossing takes: the job must not end in mid-crossing.
const MARGIN: Duration = Duration::from_secs(1200);

/// What became of one kind of kill.
#[derive(Default)]
struct Row {
    done: u32,
    rolled_back: u32,
    degraded: u32,
    slowest: Duration,
}

/// Every crossing in one direction in which somebody can be killed.
fn kills(from: &'static str, to: &'static str) -> Vec<Kill> {
    let leaves: &[Phase] = match from {
        "a" => &[Phase::LeaveHca, Phase::CheckHolders, Phase::Unplug],
        _ => &[],
    };
    let takes: &[Phase] = match to {
        "a" => &[Phase::Plug, Phase::AwaitLink, Phase::TakeHca],
        _ => &[],
    };
    let live = [
        &[Phase::Prepare],
        leaves,
        &[Phase::Copy, Phase::SwitchOver],
        takes,
        &[Phase::CleanUp],
    ];
    let hold: [&[Phase]; 2] = [
        &[Phase::Hold, Phase::Copy, Phase::SwitchOver],
        &[Phase::Rebuild],
    ];
    let live = live.concat().into_iter().map(|at| ("live", at));
    let hold = hold.concat().into_iter().map(|at| ("hold", at));
    let victims = [
        Victim::Coordinator,
        Victim::Destination,
        Victim::Agent,
        Victim::Link,
        Victim::SilentQemu,
        Victim::SilentDestination,
        Victim::SilentAgent,
        Victim::SilentRank,
    ];
    let phases = live.chain(hold);
    let replaced = phases.flat_map(|(mode, at)| victims.map(|victim| (mode, victim, at)));
    let qemus = [("live", Victim::WaitingQemu, Phase::Copy)];
    let all = replaced.chain(qemus);
    all.map(|(mode, victim, at)| Kill {
        from,
        to,
        mode,
        victim,
        at,
    })
    .collect()
}

/// Kills until `time` is over, in the order of `seed`; `Ok(true)` if the job then ends verified.
///
/// # Errors
/// The first crossing that does not end as it may.
pub fn faults(time: Duration, seed: u64) -> anyhow::Result<bool> {
    println!("--seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut there = [kills("a", "b"), kills("b", "a")].map(|mut kills| {
        chance.shuffle(&mut kills);
        kills.into_iter().cycle()
    });
    let bed = at_home(None)?;
    let seconds = (time + MARGIN).as_secs();
    let mut job = bed.job(&format!("halo --seconds {seconds}"))?;
    let begun = Instant::now();
    let mut rows: BTreeMap<(Victim, &str, Phase), Row> = BTreeMap::new();
    let mut at_b = false;
    while begun.elapsed() < time {
        let kill = there[usize::from(at_b)].next();
        let kill = kill.context("nobody is to be killed")?;
        let (phase, after) = match endures(&bed, kill) {
            Ok(ended) => ended,
            Err(error) => {
                println!("logs are kept in {}", bed.lab.keep_logs()?.display());
                show(&rows);
                return Err(error.context(format!("{kill:?}")));
            }
        };
        let row = rows.entry((kill.victim, kill.mode, kill.at)).or_default();
        row.slowest = row.slowest.max(after);
        at_b ^= phase != Phase::RolledBack;
        match phase {
            Phase::Done => row.done += 1,
            Phase::Degraded => row.degraded += 1,
            _ => row.rolled_back += 1,
        }
        println!(
            "{kill:?}: {phase}, {:.1} s after the kill",
            after.as_secs_f64()
        );
    }
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    show(&rows);
    Ok(true)
}

fn show(rows: &BTreeMap<(Victim, &str, Phase), Row>) {
    println!(
        "| killed, cut or silent | mode | in phase | done | degraded | rolled back | slowest end after it |"
    );
    println!("|---|---|---|---|---|---|---|");
    for ((victim, mode, at), row) in rows {
        println!(
            "| {victim:?} | {mode} | {at} | {} | {} | {} | {:.1} s |",
            row.done,
            row.degraded,
            row.rolled_back,
            row.slowest.as_secs_f64()
        );
    }
}

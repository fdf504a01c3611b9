//! `symvirt-lab faults`: daemons, agents, ranks and QEMUs killed or standing still, and the link
//! between the hosts cut, in every phase of crossings, in an order of chance, until the time is
//! over; a table of what became of them, which a later run can go on with.

mod record;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use symvirt_host::operation::Phase;

use super::killed::{Copies, Kill, LIMIT, Victim, endures};
use super::{at_home, expect_verified};
use crate::lab::interrupt;
use crate::lab_dir::LabDir;
use record::Record;

/// Longer than any crossing takes: the job must not end in mid-crossing.
const MARGIN: Duration = Duration::from_secs(1200);

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// No further crossing is begun after this.
    pub time: Duration,
    /// Of the order of the faults.
    pub seed: u64,
    /// Whether the record of an earlier run is gone on with: what it does not have comes first.
    pub resume: bool,
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
    let plain = all.map(|(mode, victim, at)| Kill {
        from,
        to,
        mode,
        copies: Copies::Plain,
        victim,
        at,
    });
    let streams = |kill: &Kill| matches!(kill.at, Phase::Copy | Phase::SwitchOver);
    let compressed = |kill: Kill| Kill {
        copies: Copies::Compressed,
        ..kill
    };
    let followed = victims.map(|victim| Kill {
        from,
        to,
        mode: "live",
        copies: Copies::Postcopy,
        victim,
        at: Phase::Postcopy,
    });
    plain
        .flat_map(|kill| [Some(kill), streams(&kill).then(|| compressed(kill))])
        .flatten()
        .chain(followed)
        .collect()
}

/// Kills until the time is over; `Ok(true)` if the job then ends verified. Each crossing is in the
/// record, `.lab/out/faults.json`, before the next begins.
///
/// # Errors
/// The first crossing that does not end as it may.
pub fn run(wanted: Wanted) -> anyhow::Result<bool> {
    println!("--seed {}", wanted.seed);
    let file = file()?;
    let mut record = match wanted.resume {
        true => Record::read(&file)?,
        false => Record::default(),
    };
    let mut chance = fastrand::Rng::with_seed(wanted.seed);
    let mut there = [kills("a", "b"), kills("b", "a")].map(|mut kills| {
        chance.shuffle(&mut kills);
        kills.sort_by_key(|kill| record.has(kill));
        kills.into_iter().cycle()
    });
    let bed = at_home(None)?;
    let seconds = (wanted.time + MARGIN).as_secs();
    let mut job = bed.job(&format!("halo --seconds {seconds}"))?;
    let begun = Instant::now();
    let mut at_b = false;
    while begun.elapsed() < wanted.time {
        let kill = there[usize::from(at_b)].next();
        let kill = kill.context("nobody is to be killed")?;
        let ended = endures(&bed, kill);
        if interrupt::is_ending() {
            bail!("interrupted in {kill:?}");
        }
        record.note(&kill, ended.as_ref().ok().copied());
        record.write(&file)?;
        match ended {
            Ok((phase, after)) => {
                let seconds = after.as_secs_f64();
                println!("{kill:?}: {phase}, {seconds:.1} s after the kill");
                at_b ^= phase != Phase::RolledBack;
            }
            Err(error) => {
                println!("logs are kept in {}", bed.lab.keep_logs()?.display());
                print!("{record}");
                return Err(error.context(format!("{kill:?}")));
            }
        }
    }
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    print!("{record}");
    Ok(true)
}

/// Prints the table of the record, and runs nothing.
///
/// # Errors
/// When there is no record.
pub fn show() -> anyhow::Result<()> {
    print!("{}", Record::read(&file()?)?);
    Ok(())
}

fn file() -> anyhow::Result<PathBuf> {
    Ok(LabDir::open()?.part("out")?.join("faults.json"))
}

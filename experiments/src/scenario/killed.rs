//! Programs that are killed in the middle of a crossing: the job runs on, every VM runs once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use symvirt_host::api::model::VmState;
use symvirt_host::operation::Phase;

use super::{Bed, expect_verified};
use crate::crossing::{Crossing, Order, cross};
use crate::lab::host::Host;
use crate::traffic::Transport;

const LIMIT: Duration = Duration::from_secs(300);
/// What a supervisor takes to start a daemon again.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two looks at the journal.
const LOOK: Duration = Duration::from_millis(1);

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Victim {
    /// The daemon of the host that the gang leaves, which coordinates.
    Coordinator,
    /// The daemon of the host that it goes to.
    Destination,
}

/// One crossing in which somebody is killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Kill {
    pub from: &'static str,
    pub to: &'static str,
    pub mode: &'static str,
    pub victim: Victim,
    pub at: Phase,
}

/// The gating slice: the coordinator in mid-switch, in the copy, at the crossing, with the link
/// awaited; the destination while it waits.
pub(super) fn daemons(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 1500")?;
    let kill = |from, to, mode, victim, at| Kill {
        from,
        to,
        mode,
        victim,
        at,
    };
    for kill in [
        kill("a", "b", "hold", Victim::Coordinator, Phase::Copy),
        kill("b", "a", "live", Victim::Coordinator, Phase::TakeHca),
        kill("a", "b", "live", Victim::Coordinator, Phase::LeaveHca),
        kill("b", "a", "hold", Victim::Destination, Phase::Copy),
        kill("a", "b", "live", Victim::Coordinator, Phase::SwitchOver),
        kill("b", "a", "live", Victim::Destination, Phase::Plug),
    ] {
        endures(bed, kill).with_context(|| format!("{kill:?}"))?;
    }
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// The crossing ends as asked although somebody is killed, and the job goes on.
pub(super) fn endures(bed: &Bed, kill: Kill) -> anyhow::Result<Crossing> {
    let from = bed.lab.host(kill.from).context("no such host")?;
    let to = bed.lab.host(kill.to).context("no such host")?;
    let order = Order {
        from,
        to: kill.to,
        mode: kill.mode,
        options: &["--bandwidth", "64MiB"],
    };
    let victim = match kill.victim {
        Victim::Coordinator => from,
        Victim::Destination => to,
    };
    let before = journals(from)?;
    let over = AtomicBool::new(false);
    let (crossing, killed) = std::thread::scope(|scope| {
        let killing = scope.spawn(|| {
            let reached = || has_begun(from, &before, kill.at);
            while !reached() {
                if over.load(Ordering::Relaxed) {
                    anyhow::bail!("the phase never began");
                }
                std::thread::sleep(LOOK);
            }
            Ok(bed.lab.restart_daemon(victim, PAUSE)?)
        });
        let crossing = cross(&order, &mut |_| ());
        over.store(true, Ordering::Relaxed);
        let killed = killing.join();
        (crossing, killed)
    });
    let crossing = crossing?;
    let end = format!(
        "it ended {}: {:?}",
        crossing.last.phase, crossing.last.reason
    );
    let killed = killed.map_err(|_| anyhow::anyhow!("who was to kill has panicked"))?;
    killed.with_context(|| end.clone())?;
    ensure!(crossing.is_done(), "{end}");
    exactly_one(bed, kill.to)?;
    bed.expect(match kill.to {
        "a" => Transport::Rdma,
        _ => Transport::Tcp,
    })?;
    Ok(crossing)
}

/// The journals of a host's operations.
fn journals(host: &Host) -> anyhow::Result<BTreeSet<PathBuf>> {
    let directory = host.state().join("operations");
    let entries = std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    Ok(paths.collect::<Result<_, _>>()?)
}

/// Whether the operation that has come since `before` has written down that `phase` is about to
/// begin.
fn has_begun(host: &Host, before: &BTreeSet<PathBuf>, phase: Phase) -> bool {
    let intent = format!("\"record\":\"intent\",\"phase\":\"{phase}\"");
    let now = journals(host).unwrap_or_default();
    now.difference(before).any(|journal| {
        std::fs::read_to_string(journal).is_ok_and(|records| records.contains(&intent))
    })
}

/// Every guest has one QEMU, which runs, on `host`.
fn exactly_one(bed: &Bed, host: &str) -> anyhow::Result<()> {
    for place in &bed.lab.hosts {
        let vms = bed.vms(place.name)?;
        let here: BTreeSet<_> = vms.iter().map(|vm| vm.name.to_string()).collect();
        let guests = bed.lab.guests.iter().map(|guest| guest.id.name());
        let expected: BTreeSet<_> = guests.filter(|_| place.name == host).collect();
        ensure!(here == expected, "on {} are {vms:?}", place.name);
        let runs = vms.iter().all(|vm| vm.state == VmState::Running);
        ensure!(runs, "on {} not all run: {vms:?}", place.name);
    }
    Ok(())
}

//! Programs that are killed, and links that are cut, in the middle of a crossing: the job runs on,
//! every VM runs once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use symvirt_host::api::model::{VmInfo, VmState};
use symvirt_host::operation::Phase;

use super::{Bed, expect_verified};
use crate::crossing::{Order, cross};
use crate::lab::host::Host;
use crate::traffic::Transport;

pub(super) const LIMIT: Duration = Duration::from_secs(300);
/// What a supervisor takes to start a daemon again.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the link between the hosts is cut, or a process stands still.
const CUT: Duration = Duration::from_secs(3);

/// Between two looks at the journal.
const LOOK: Duration = Duration::from_millis(1);

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) enum Victim {
    /// The daemon of the host that the gang leaves, which coordinates.
    Coordinator,
    /// The daemon of the host that it goes to.
    Destination,
    /// A QEMU that waits there for its VM.
    WaitingQemu,
    /// The agent in the first guest; init starts it again.
    Agent,
    /// The link between the hosts, for [`CUT`].
    Link,
    /// The QEMU of the first VM stands still for [`CUT`], and its monitor is silent.
    SilentQemu,
    /// The same of the destination's daemon.
    SilentDestination,
    /// The same of the agent in the first guest.
    SilentAgent,
    /// The same of the ranks there.
    SilentRank,
}

/// How the VMs of a crossing are copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(super) enum Copies {
    #[default]
    Plain,
    /// Another path through QEMU, with threads of its own.
    Compressed,
    /// So soon taken for one that does not converge that most of the memory follows the VMs.
    Postcopy,
}

impl Copies {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["--bandwidth", "64MiB"],
            Self::Compressed => &["--bandwidth", "64MiB", "--compress", "zstd"],
            Self::Postcopy => &[
                "--bandwidth",
                "16MiB",
                "--converge-timeout",
                "1",
                "--if-not-converging",
                "postcopy",
            ],
        }
    }
}

/// One crossing in which somebody is killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Kill {
    pub from: &'static str,
    pub to: &'static str,
    pub mode: &'static str,
    pub copies: Copies,
    pub victim: Victim,
    pub at: Phase,
}

impl Kill {
    /// Whether it may end so. Daemons are followed by others, and a QEMU that waits is replaced.
    fn may_end(&self, phase: Phase) -> bool {
        match self.victim {
            Victim::Coordinator | Victim::Destination | Victim::WaitingQemu => phase == Phase::Done,
            Victim::Agent
            | Victim::Link
            | Victim::SilentQemu
            | Victim::SilentDestination
            | Victim::SilentAgent
            | Victim::SilentRank => {
                matches!(phase, Phase::Done | Phase::RolledBack | Phase::Degraded)
            }
        }
    }
}

/// The gating slice: the coordinator in mid-switch, in the copy, at the crossing, with the link
/// awaited, while memory follows; the destination while it waits.
pub(super) fn daemons(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 1500")?;
    let case = |from, to, mode, victim, at| Kill {
        from,
        to,
        mode,
        copies: match (victim, at) {
            (Victim::WaitingQemu, _) => Copies::Compressed,
            (_, Phase::Postcopy) => Copies::Postcopy,
            _ => Copies::Plain,
        },
        victim,
        at,
    };
    for kill in [
        case("a", "b", "hold", Victim::Coordinator, Phase::Copy),
        case("b", "a", "live", Victim::Coordinator, Phase::TakeHca),
        case("a", "b", "live", Victim::Coordinator, Phase::LeaveHca),
        case("b", "a", "hold", Victim::Destination, Phase::Copy),
        case("a", "b", "live", Victim::Coordinator, Phase::SwitchOver),
        case("b", "a", "live", Victim::Destination, Phase::Plug),
        case("a", "b", "live", Victim::WaitingQemu, Phase::Copy),
        case("b", "a", "live", Victim::Coordinator, Phase::Postcopy),
    ] {
        endures(bed, kill).with_context(|| format!("{kill:?}"))?;
    }
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// Somebody is killed in a crossing, which ends as it may, and the job goes on. How it ended, and
/// how long after the kill.
pub(super) fn endures(bed: &Bed, kill: Kill) -> anyhow::Result<(Phase, Duration)> {
    let from = bed.lab.host(kill.from).context("no such host")?;
    let to = bed.lab.host(kill.to).context("no such host")?;
    let order = Order {
        from,
        to: kill.to,
        mode: kill.mode,
        options: kill.copies.options(),
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
            let at = Instant::now();
            match kill.victim {
                Victim::Coordinator => bed.lab.restart_daemon(from, PAUSE)?,
                Victim::Destination => bed.lab.restart_daemon(to, PAUSE)?,
                Victim::WaitingQemu => kill_waiting(bed, to)?,
                Victim::Agent => {
                    bed.lab.guests[0].run("pkill -9 -x symvirt-guest")?;
                }
                Victim::Link => bed.lab.cut_link(CUT)?,
                Victim::SilentQemu => stand_still(first_qemu(bed, from)?)?,
                Victim::SilentDestination => stand_still(to.pid().context("no daemon")?)?,
                Victim::SilentAgent => stand_still_inside(bed, "symvirt-guest")?,
                Victim::SilentRank => stand_still_inside(bed, "halo")?,
            }
            Ok(at)
        });
        let crossing = cross(&order, &mut |_| ()).map(|crossing| (crossing, Instant::now()));
        over.store(true, Ordering::Relaxed);
        let killed = killing.join();
        (crossing, killed)
    });
    let (crossing, ended) = crossing?;
    let end = format!(
        "it ended {}: {:?}",
        crossing.last.phase, crossing.last.reason
    );
    let killed = killed.map_err(|_| anyhow::anyhow!("who was to kill has panicked"))?;
    let killed = killed.with_context(|| end.clone())?;
    let phase = crossing.last.phase;
    ensure!(kill.may_end(phase), "{end}");
    // Degraded, the job is soon moved onto its HCAs all the same.
    let home = match phase {
        Phase::RolledBack => kill.from,
        _ => kill.to,
    };
    exactly_one(bed, home)?;
    bed.expect(match home {
        "a" => Transport::Rdma,
        _ => Transport::Tcp,
    })?;
    Ok((phase, ended.saturating_duration_since(killed)))
}

/// Kills a QEMU that waits on `host`.
fn kill_waiting(bed: &Bed, host: &Host) -> anyhow::Result<()> {
    let pid = qemu(bed, host, |vm| vm.state == VmState::Incoming)?;
    Ok(kill(pid, Signal::SIGKILL)?)
}

fn first_qemu(bed: &Bed, host: &Host) -> anyhow::Result<Pid> {
    let first = bed.lab.guests[0].id.name();
    qemu(bed, host, |vm| vm.name.as_str() == first)
}

fn qemu(bed: &Bed, host: &Host, which: impl Fn(&VmInfo) -> bool) -> anyhow::Result<Pid> {
    let vms = bed.vms(host.name)?;
    let pid = vms.iter().find(|vm| which(vm)).and_then(|vm| vm.pid);
    let pid = pid.with_context(|| format!("no such VM on {}: {vms:?}", host.name))?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

fn stand_still(process: Pid) -> anyhow::Result<()> {
    kill(process, Signal::SIGSTOP)?;
    std::thread::sleep(CUT);
    Ok(kill(process, Signal::SIGCONT)?)
}

/// The same in the first guest, of what is called `program`. Guests may be out of reach meanwhile:
/// the end of the standstill is the guest's own affair.
fn stand_still_inside(bed: &Bed, program: &str) -> anyhow::Result<()> {
    let seconds = CUT.as_secs();
    bed.lab.guests[0].run(&format!(
        "pkill -STOP -x {program} && \
         {{ (sleep {seconds}; pkill -CONT -x {program}) >/dev/null 2>&1 </dev/null & }}"
    ))?;
    Ok(())
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

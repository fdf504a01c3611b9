//! VMs that cross before their memory: what keeps it from following.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use symvirt_host::api::model::{OperationInfo, VmState};
use symvirt_host::operation::Phase;

use super::{Bed, expect_verified};
use crate::command;
use crate::crossing::{Crossing, Order, cross};
use crate::lab::host::Host;
use crate::traffic::Transport;

const LIMIT: Duration = Duration::from_secs(300);
/// A copy that is soon taken for one that does not converge, with most of it left.
const SOON: [&str; 8] = [
    "--bandwidth",
    "8MiB",
    "--compress",
    "off",
    "--converge-timeout",
    "1",
    "--if-not-converging",
    "postcopy",
];
/// How long the link is cut: TCP gives up before, see [`impatient`].
const CUT: Duration = Duration::from_secs(20);

fn migrate(
    bed: &Bed,
    [from, to]: [&str; 2],
    watch: &mut dyn FnMut(&OperationInfo),
) -> anyhow::Result<Crossing> {
    let order = Order {
        from: bed.lab.host(from).context("no such host")?,
        to,
        mode: "live",
        options: &SOON,
    };
    Ok(cross(&order, watch)?)
}

/// Connections of this host end after some seconds in which nobody answers, and those to it as soon
/// as it can say so; by default it takes a quarter of an hour.
fn impatient(host: &Host) -> anyhow::Result<()> {
    let mut sysctl = host.inside("sysctl".as_ref());
    command::output(sysctl.args(["-w", "net.ipv4.tcp_retries2=3"])).context("tcp_retries2")?;
    Ok(())
}

/// Both ends wait for a link that TCP has given up, and the job with them; then it goes on.
pub(super) fn broken_link(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    // Not the other, by which the job is observed.
    impatient(bed.lab.host("b").context("no host b")?)?;
    let mut cut = None;
    let crossing = migrate(bed, ["a", "b"], &mut |info| {
        if info.phase == Phase::Postcopy && cut.is_none() {
            cut = Some(bed.lab.cut_link(CUT));
        }
    })?;
    let end = format!(
        "it ended {}: {:?}",
        crossing.last.phase, crossing.last.reason
    );
    cut.with_context(|| format!("no memory followed; {end}"))??;
    ensure!(crossing.is_done(), "{end}");
    let report = crossing.last.report.as_ref().context("no report")?;
    println!("{:?}: {:?}", report.notes, report.convergence);
    let notes = report.notes.join("; ");
    ensure!(notes.contains("joined again"), "it never broke: {notes}");
    bed.expect(Transport::Tcp)?;
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// The destination's QEMU of one VM: the operation says at once that it is lost, and the other VM is
/// left whole.
pub(super) fn killed(bed: &Bed) -> anyhow::Result<()> {
    let job = bed.job("halo --seconds 900")?;
    let mut killed = None;
    let crossing = migrate(bed, ["a", "b"], &mut |info| {
        if info.phase == Phase::Postcopy && killed.is_none() {
            killed = Some(kill_first(bed, "b").map(|()| Instant::now()));
        }
    })?;
    let reason = crossing.last.reason.clone().unwrap_or_default();
    let end = format!("it ended {}: {reason}", crossing.last.phase);
    let killed = killed.with_context(|| format!("no memory followed; {end}"))??;
    println!(
        "{end}; {:.1} s after the kill",
        killed.elapsed().as_secs_f64()
    );
    let first = bed.lab.guests[0].id.name();
    ensure!(
        crossing.last.phase == Phase::NeedsOperator
            && reason.contains(&format!("{first} is lost, and the job with it")),
        "{end}"
    );
    let (here, there) = (bed.vms("a")?, bed.vms("b")?);
    ensure!(here.is_empty(), "something is left on a: {here:?}");
    let runs = there.iter().filter(|vm| vm.state == VmState::Running);
    ensure!(runs.count() == 1, "on b: {there:?}");
    // Its launcher or the other rank may still run; nobody waits for them.
    job.finish("halo").ok();
    Ok(())
}

fn kill_first(bed: &Bed, host: &str) -> anyhow::Result<()> {
    let first = bed.lab.guests[0].id.name();
    let vms = bed.vms(host)?;
    let pid = vms.iter().find(|vm| vm.name.as_str() == first);
    let pid = pid.and_then(|vm| vm.pid).context("it has no QEMU")?;
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?)
}

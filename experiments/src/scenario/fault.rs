//! Crossings that must not end as asked.

use std::time::Duration;

use anyhow::{Context, ensure};
use symvirt_host::operation::Phase;

use super::{Bed, expect_verified};
use crate::command;
use crate::crossing::{Crossing, Order, cross};
use crate::traffic::Transport;

const LIMIT: Duration = Duration::from_secs(300);
/// Exit status of `symvirt` for an operation that was rolled back.
const ROLLED_BACK: i32 = 10;

fn order<'a>(bed: &'a Bed, mode: &'a str, options: &'a [&'a str]) -> anyhow::Result<Order<'a>> {
    Ok(Order {
        from: bed.lab.host("a").context("no host a")?,
        to: "b",
        mode,
        options,
    })
}

fn describe(crossing: &Crossing) -> String {
    format!(
        "ended {} (exit {:?}): {:?}",
        crossing.last.phase, crossing.exit, crossing.last.reason
    )
}

/// Before the point of no return: everything as before, the job on its HCA.
pub(super) fn cancelled(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let order = order(bed, "live", &["--bandwidth", "1MiB"])?;
    let mut asked = None;
    let crossing = cross(&order, &mut |info| {
        if info.phase == Phase::Copy && asked.is_none() {
            let mut cancel = order.from.symvirt();
            asked = Some(command::output(cancel.args(["cancel", info.id.as_str()])));
        }
    })?;
    asked
        .with_context(|| format!("it was never copied: {}", describe(&crossing)))?
        .context("cancel")?;
    ensure!(
        crossing.last.phase == Phase::RolledBack && crossing.exit == Some(ROLLED_BACK),
        "it {}",
        describe(&crossing)
    );
    ensure!(bed.vms("b")?.is_empty(), "a VM is left on b");
    bed.expect(Transport::Rdma)?;
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// `ibv_asyncwatch` holds the device and knows nothing of us.
pub(super) fn foreign_holder(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let guest = &bed.lab.guests[1];
    let pid = guest.run("ibv_asyncwatch >/dev/null 2>&1 </dev/null & echo $!")?;
    let pid = pid.trim();
    guest.wait_until(
        &format!("ls -l /proc/{pid}/fd | grep -q uverbs"),
        Duration::from_secs(20),
    )?;
    let crossing = cross(&order(bed, "live", &[])?, &mut |_| ())?;
    let freed = guest.run(&format!("kill {pid}"));
    ensure!(
        crossing.last.phase == Phase::RolledBack && crossing.exit == Some(ROLLED_BACK),
        "it {}",
        describe(&crossing)
    );
    let reason = crossing.last.reason.unwrap_or_default();
    ensure!(
        reason.contains("ibv_asyncwatch") && reason.contains(pid),
        "the reason does not name ibv_asyncwatch, pid {pid}: {reason}"
    );
    freed.context("ibv_asyncwatch has ended")?;
    bed.expect(Transport::Rdma)?;
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// The job fails as it would without us; the operation ends with that reason, at its source.
pub(super) fn killed_rank(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    // At this pace the copy takes minutes: the rank is killed in it, however slow the machine.
    let order = order(bed, "hold", &["--bandwidth", "1MiB"])?;
    let mut killed = None;
    let crossing = cross(&order, &mut |info| {
        if info.phase == Phase::Copy && killed.is_none() {
            killed = Some(bed.lab.guests[1].run("pkill -KILL -x halo"));
        }
    })?;
    let end = describe(&crossing);
    killed
        .with_context(|| format!("it was never held: {end}"))?
        .context("kill the rank")?;
    let outcome = job.wait(LIMIT).context("the job hangs")?;
    ensure!(
        !outcome.success,
        "a job that lost a rank says that all is well"
    );
    ensure!(
        crossing.last.phase == Phase::RolledBack && crossing.exit == Some(ROLLED_BACK),
        "it {end}"
    );
    let reason = crossing.last.reason.as_deref().unwrap_or_default();
    ensure!(
        ["halo", "g2", "died"]
            .iter()
            .all(|word| reason.contains(word)),
        "the reason does not name the rank: {reason}"
    );
    ensure!(bed.vms("b")?.is_empty(), "a VM is left on b");
    Ok(())
}

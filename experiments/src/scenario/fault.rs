//! Crossings that must not end as asked.

use std::time::Duration;

use anyhow::{Context, ensure};
use symvirt_host::operation::Phase;

use super::{Bed, expect_verified};
use crate::command;
use crate::crossing::{Order, cross};
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

/// Before the point of no return: everything as before, the job on its HCA.
pub(super) fn cancelled(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let order = order(bed, "live", &["--bandwidth", "4MiB"])?;
    let mut asked = None;
    let crossing = cross(&order, &mut |info| {
        if info.phase == Phase::Copy && asked.is_none() {
            let mut cancel = order.from.symvirt();
            asked = Some(command::output(cancel.args(["cancel", info.id.as_str()])));
        }
    })?;
    asked.context("the copy was not seen")?.context("cancel")?;
    ensure!(
        crossing.last.phase == Phase::RolledBack && crossing.exit == Some(ROLLED_BACK),
        "it ended {} (exit {:?}): {:?}",
        crossing.last.phase,
        crossing.exit,
        crossing.last.reason
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
        "it ended {} (exit {:?}): {:?}",
        crossing.last.phase,
        crossing.exit,
        crossing.last.reason
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

/// The job fails as it would without us; the operation ends, whichever way.
pub(super) fn killed_rank(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let order = order(bed, "hold", &[])?;
    let mut killed = None;
    let crossing = cross(&order, &mut |info| {
        // Ranks are held from here to the rebuild; a phase may be too short to be seen.
        let held = matches!(
            info.phase,
            Phase::Hold | Phase::CheckHolders | Phase::Unplug | Phase::Copy
        );
        if held && killed.is_none() {
            killed = Some(bed.lab.guests[1].run("pkill -KILL -x halo"));
        }
    })?;
    killed
        .context("the quiesce was not seen")?
        .context("kill the rank")?;
    let outcome = job.wait(LIMIT).context("the job hangs")?;
    ensure!(
        !outcome.success,
        "a job that lost a rank says that all is well"
    );
    ensure!(
        crossing.last.phase.is_terminal(),
        "the operation has not ended"
    );
    let names_it = crossing.last.phase == Phase::Done
        || crossing
            .last
            .reason
            .as_deref()
            .is_some_and(|reason| !reason.is_empty());
    ensure!(
        names_it,
        "it ended {} without a reason",
        crossing.last.phase
    );
    Ok(())
}

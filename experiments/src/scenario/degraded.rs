//! A job that did not get its HCA gets it later.

use std::time::Duration;

use anyhow::{Context, ensure};
use symvirt_host::operation::Phase;

use super::{Bed, crossing, expect_verified};
use crate::command;
use crate::crossing::{Order, cross};
use crate::traffic::Transport;

const LIMIT: Duration = Duration::from_secs(300);

/// The port trains for longer than anybody waits; once it is up, the daemon moves the job by itself.
pub(super) fn retried(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    crossing::done(bed, "a", "b", "live")?;
    for guest in &bed.lab.guests {
        guest.run("echo 60 > /run/symvirt/link-down")?;
    }
    let order = Order {
        from: bed.lab.host("b").context("no such host")?,
        to: "a",
        mode: "live",
        options: &["--bandwidth", "64MiB", "--link-timeout", "5"],
    };
    let back = cross(&order, &mut |_| ())?;
    ensure!(
        back.last.phase == Phase::Degraded,
        "it ended {}: {:?}",
        back.last.phase,
        back.last.reason
    );
    bed.expect(Transport::Tcp)?;
    let home = bed.lab.host("a").context("no such host")?;
    let id = back.last.id.as_str();
    let status = command::output(home.symvirt().arg("status"))?;
    ensure!(
        status.contains(&format!("{id} ended degraded, and goes on")),
        "status does not tell of it: {status}"
    );
    bed.expect(Transport::Rdma)?;
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

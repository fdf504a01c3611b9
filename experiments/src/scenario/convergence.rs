//! Gangs that dirty their memory faster than it is copied, or would.

use std::time::Duration;

use anyhow::{Context, ensure};
use symvirt_host::operation::effects::Streams;
use symvirt_host::operation::{Phase, Report};

use super::{Bed, expect_verified};
use crate::crossing::{Crossing, Order, cross};
use crate::traffic::Transport;

const LIMIT: Duration = Duration::from_secs(300);

fn migrate(bed: &Bed, from: &str, to: &str, options: &[&str]) -> anyhow::Result<Crossing> {
    let order = Order {
        from: bed.lab.host(from).context("no such host")?,
        to,
        mode: "live",
        options,
    };
    Ok(cross(&order, &mut |_| ())?)
}

fn report(crossing: &Crossing) -> anyhow::Result<&Report> {
    crossing.last.report.as_ref().context("no report")
}

/// A job that writes to its memory faster than [`SLOW`] copies it.
const DIRTY: &str = "dirty --seconds 900 --megabytes 40 --pages 6";
const SLOW: [&str; 4] = ["--bandwidth", "4MiB", "--compress", "off"];

pub(super) fn diverges(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job(DIRTY)?;
    let refused = migrate(bed, "a", "b", &SLOW)?;
    let reason = refused.last.reason.clone().unwrap_or_default();
    ensure!(
        refused.last.phase == Phase::RolledBack && reason.contains("did not converge"),
        "it ended {}: {reason}",
        refused.last.phase
    );
    bed.expect(Transport::Rdma)?;
    let hold: Vec<_> = SLOW
        .into_iter()
        .chain(["--if-not-converging", "hold"])
        .collect();
    let held = migrate(bed, "a", "b", &hold)?;
    let report = report(&held)?;
    ensure!(
        held.is_done() && held.phase(Phase::HoldLate).is_some(),
        "it ended {}: {:?}, {:?}",
        held.last.phase,
        held.last.reason,
        report.convergence
    );
    println!("refused: {reason}");
    println!("held: {:?}", report.convergence);
    bed.expect(Transport::Tcp)?;
    job.finish("dirty")?;
    expect_verified(&mut job, LIMIT)?;
    let back = migrate(bed, "b", "a", &[])?;
    ensure!(back.is_done(), "back: {:?}", back.last.reason);
    Ok(())
}

/// The job of [`diverges`], allowed to be slowed down: it crosses live.
pub(super) fn slowed(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job(DIRTY)?;
    let options = SLOW.into_iter().chain(["--throttle", "95"]);
    let crossing = migrate(bed, "a", "b", &options.collect::<Vec<_>>())?;
    let convergence = report(&crossing)?.convergence.as_ref();
    let convergence = convergence.context("no convergence")?;
    println!("slowed down: {convergence:?}");
    ensure!(
        crossing.is_done() && convergence.slowed > 0 && convergence.diverged.is_none(),
        "it ended {}: {:?}",
        crossing.last.phase,
        crossing.last.reason
    );
    bed.expect(Transport::Tcp)?;
    job.finish("dirty")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// By several compressed connections, under TLS as always.
pub(super) fn compressed(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let mut bytes = Vec::new();
    for (from, to, compress) in [("a", "b", "zstd"), ("b", "a", "off")] {
        let options = [
            "--bandwidth",
            "32MiB",
            "--throttle",
            "60",
            "--compress",
            compress,
        ];
        let crossing = migrate(bed, from, to, &options)?;
        let report = report(&crossing)?;
        ensure!(
            crossing.is_done(),
            "{compress}: it ended {}: {:?}",
            crossing.last.phase,
            crossing.last.reason
        );
        let convergence = report.convergence.as_ref().context("no convergence")?;
        ensure!(
            (convergence.streams == Streams::Zstd) == (compress == "zstd"),
            "{compress}: {convergence:?}"
        );
        println!("{compress}: {convergence:?}");
        bytes.push(report.vms.iter().map(|vm| vm.bytes).sum::<u64>());
    }
    println!("bytes compressed and not: {bytes:?}");
    ensure!(bytes[0] < bytes[1], "compressing saved nothing: {bytes:?}");
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

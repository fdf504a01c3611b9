//! Crossings that end as asked.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use symvirt_host::operation::{Phase, Target};

use super::{Bed, expect_verified};
use crate::crossing::{Crossing, Order, cross};
use crate::job::{Job, Mpi};
use crate::stall::{self, ClockOffset};
use crate::switching;
use crate::traffic::Transport;

/// Far longer than any of these jobs should run after its crossings.
const LIMIT: Duration = Duration::from_secs(300);

/// A crossing that must end as asked.
pub(super) fn done(bed: &Bed, from: &str, to: &str, mode: &str) -> anyhow::Result<Crossing> {
    let order = Order {
        from: bed.lab.host(from).context("no such host")?,
        to,
        mode,
        options: &["--bandwidth", "64MiB"],
    };
    let crossing = cross(&order, &mut |_| ())?;
    ensure!(
        crossing.is_done(),
        "{from} to {to} ended {}: {:?}",
        crossing.last.phase,
        crossing.last.reason
    );
    let report = crossing.last.report.as_ref().context("no report")?;
    let expected = if to == "a" {
        Target::Native
    } else {
        Target::Fallback
    };
    ensure!(
        report.interconnect == Some(expected),
        "{from} to {to}: the gang is on {:?}: {:?}",
        report.interconnect,
        report.notes
    );
    Ok(crossing)
}

/// Over RDMA, over TCP during the copy and at the destination, over RDMA again.
pub(super) fn live(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let there = done(bed, "a", "b", "live")?;
    let (from, to) = there.phase(Phase::Copy).context("no copy in the report")?;
    let seen = bed.traffic.transport_between(from, to);
    ensure!(
        seen == Some(Transport::Tcp),
        "during the copy the job was to run over TCP, seen: {seen:?}: {}",
        bed.traffic.describe(from, to)
    );
    bed.expect(Transport::Tcp)?;
    ensure!(bed.vms("a")?.is_empty(), "a VM is still listed on a");
    done(bed, "b", "a", "live")?;
    bed.expect(Transport::Rdma)?;
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// Quiet during the copy, and whole afterwards.
pub(super) fn held(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("halo --seconds 900")?;
    let there = done(bed, "a", "b", "hold")?;
    let (from, to) = there.phase(Phase::Copy).context("no copy in the report")?;
    let seen = bed.traffic.transport_between(from, to);
    ensure!(
        seen.is_none(),
        "held, the job was to be quiet, seen: {seen:?}: {}",
        bed.traffic.describe(from, to)
    );
    bed.expect(Transport::Tcp)?;
    done(bed, "b", "a", "hold")?;
    bed.expect(Transport::Rdma)?;
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// Windows keep their content, their locks and their keys: registered at the HCA, then nowhere,
/// then at another HCA. With fences and shared locks only: `windows`, the program of all kinds,
/// hangs in Open MPI 5.0.7 over soft-RoCE also without the library.
pub(super) fn windows(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("window --seconds 900")?;
    for mode in ["live", "hold"] {
        done(bed, "a", "b", mode)?;
        bed.expect(Transport::Tcp)?;
        done(bed, "b", "a", mode)?;
        bed.expect(Transport::Rdma)?;
    }
    job.finish("window")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// Several at once, blocking and not.
pub(super) fn collectives(bed: &Bed) -> anyhow::Result<()> {
    let mut job = there_and_back(bed, Mpi::OpenMpi, "collectives", "live")?;
    job.finish("collectives")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// Messages, collectives and windows of MPICH, which takes active messages for these.
///
/// Each job ends over TCP: MPICH does not wait for its peers between the flush and the end of its
/// connections, and where one of them still speaks, soft-RoCE reports the end of a queue pair twice,
/// which UCX up to 1.20 takes for a bug of its own and aborts, also without the library (mended
/// upstream by commit 035e095540).
pub(super) fn mpich(bed: &Bed) -> anyhow::Result<()> {
    for (program, mode) in [
        ("halo", "live"),
        ("collectives", "hold"),
        ("window", "live"),
    ] {
        let mut job = there_and_back(bed, Mpi::Mpich, program, mode)?;
        switching::in_place(&bed.lab, "fallback", mode)?;
        bed.expect(Transport::Tcp)?;
        job.finish(program)?;
        expect_verified(&mut job, LIMIT)?;
        // The next job begins where the gang is.
        switching::in_place(&bed.lab, "native", "live")?;
    }
    Ok(())
}

/// A job that is over RDMA again.
fn there_and_back(bed: &Bed, mpi: Mpi, program: &str, mode: &str) -> anyhow::Result<Job> {
    let job = bed.job_with(mpi, &format!("{program} --seconds 900"))?;
    done(bed, "a", "b", mode)?;
    bed.expect(Transport::Tcp)?;
    done(bed, "b", "a", mode)?;
    bed.expect(Transport::Rdma)?;
    Ok(job)
}

/// The port trains for half a minute after plug; the job communicates over TCP all the while, and
/// takes the HCA when it is ready.
pub(super) fn slow_link(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job("stall_probe --seconds 900 --gaps 200")?;
    done(bed, "a", "b", "live")?;
    for guest in &bed.lab.guests {
        guest.run("echo 30 > /run/symvirt/link-down")?;
    }
    let back = done(bed, "b", "a", "live")?;
    let offset = ClockOffset::of(&bed.lab.guests[0])?;
    let (from, to) = back
        .phase(Phase::AwaitLink)
        .context("it did not wait for the link")?;
    let waited = Duration::from_millis(to - from);
    let seen = bed.traffic.transport_between(from, to);
    ensure!(
        seen == Some(Transport::Tcp),
        "while the link was down the job was to run over TCP, seen: {seen:?}: {}",
        bed.traffic.describe(from, to)
    );
    bed.expect(Transport::Rdma)?;
    job.finish("stall_probe")?;
    let outcome = expect_verified(&mut job, LIMIT)?;
    let gaps = stall::gaps(&outcome.output, offset);
    if let Some(gap) = stall::longest(&gaps, from + 1000, to.saturating_sub(1000))
        && gap.length > waited / 20
    {
        bail!(
            "a stall of {:?} while the link was down for {waited:?}",
            gap.length
        );
    }
    Ok(())
}

/// A rank that has called nothing of MPI for long is moved as fast as any other: both crossings
/// are over before it calls again.
pub(super) fn computing(bed: &Bed) -> anyhow::Result<()> {
    let words = "compute_only --seconds 900";
    let mut job = Job::start_app(&bed.lab.guests, Mpi::OpenMpi, words)?;
    for guest in &bed.lab.guests {
        guest.wait_until(
            "ls -l /proc/$(pgrep -x compute_only)/fd | grep -q uverbs",
            LIMIT,
        )?;
    }
    done(bed, "a", "b", "live")?;
    done(bed, "b", "a", "live")?;
    ensure!(
        job.is_running() && job.output().is_empty(),
        "the crossings took as long as the rank computes"
    );
    job.finish("compute_only")?;
    expect_verified(&mut job, LIMIT)?;
    Ok(())
}

/// Nobody is there to be moved onto the HCA: who starts next finds it.
pub(super) fn between_jobs(bed: &Bed) -> anyhow::Result<()> {
    let mut first = bed.job("halo --seconds 900")?;
    done(bed, "a", "b", "live")?;
    bed.expect(Transport::Tcp)?;
    first.finish("halo")?;
    expect_verified(&mut first, LIMIT)?;
    let order = Order {
        from: bed.lab.host("b").context("no such host")?,
        to: "a",
        mode: "live",
        options: &[],
    };
    let back = cross(&order, &mut |_| ())?;
    ensure!(
        back.is_done(),
        "it ended {}: {:?}",
        back.last.phase,
        back.last.reason
    );
    let mut next = bed.job("halo --seconds 900")?;
    next.finish("halo")?;
    expect_verified(&mut next, LIMIT)?;
    Ok(())
}

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

/// A job that writes to its memory faster than [`SLOW`] copies it, on any machine.
const DIVERGES: &str = "dirty --seconds 900 --megabytes 60 --pages 100";
/// One that does, and can be slowed down enough.
const DIRTY: &str = "dirty --seconds 900 --megabytes 40 --pages 20";
const SLOW: [&str; 4] = ["--bandwidth", "4MiB", "--compress", "off"];

pub(super) fn diverges(bed: &Bed) -> anyhow::Result<()> {
    let mut job = bed.job(DIVERGES)?;
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

/// Such a job, allowed to be slowed down: it crosses live.
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

/// With files in the guests' page caches, which are copied once and dropped once. Without a job, which
/// would only make the reading of files slow.
pub(super) fn page_cache(bed: &Bed) -> anyhow::Result<()> {
    const READ: &str =
        "find /usr/lib -xdev -type f -size +300k | head -n 120 | xargs cat >/dev/null";
    let mut bytes = Vec::new();
    for (from, to, drops) in [("a", "b", "off"), ("b", "a", "on")] {
        for guest in &bed.lab.guests {
            guest.run("modprobe virtio_balloon")?;
            guest.run_within(READ, LIMIT)?;
        }
        let options = [
            "--bandwidth",
            "64MiB",
            "--compress",
            "off",
            "--drop-page-cache",
            drops,
        ];
        let crossing = migrate(bed, from, to, &options)?;
        ensure!(
            crossing.is_done(),
            "{drops}: it ended {}: {:?}",
            crossing.last.phase,
            crossing.last.reason
        );
        let vms = &report(&crossing)?.vms;
        let dropped: Vec<_> = vms.iter().map(|vm| vm.cache_dropped).collect();
        println!(
            "{drops}: {:.1} MB copied, dropped {dropped:?}",
            crossing.bytes() as f64 / 1e6
        );
        let told = dropped.iter().flatten().filter(|bytes| **bytes > 0).count();
        ensure!(
            told == if drops == "on" { vms.len() } else { 0 },
            "{drops}: dropped {dropped:?}"
        );
        bytes.push(crossing.bytes());
    }
    ensure!(bytes[1] < bytes[0], "dropping saved nothing: {bytes:?}");
    Ok(())
}

/// One VM has more to be copied than the other, and their copies share one bandwidth: they are ready
/// together, and keep to it.
pub(super) fn shared(bed: &Bed) -> anyhow::Result<()> {
    const TOGETHER: f64 = (24 << 20) as f64;
    let mut job = bed.job("halo --seconds 900")?;
    // More than zeroes, and quickly made.
    bed.lab.guests[0].run_within(
        "head -c 2M /dev/urandom >/tmp/once && \
         for copy in $(seq 50); do cat /tmp/once; done >/dev/shm/fill",
        LIMIT,
    )?;
    let options = ["--gang-bandwidth", "24MiB", "--compress", "off"];
    let crossing = migrate(bed, "a", "b", &options)?;
    bed.lab.guests[0].run("rm /dev/shm/fill")?;
    ensure!(
        crossing.is_done(),
        "it ended {}: {:?}",
        crossing.last.phase,
        crossing.last.reason
    );
    let (began, ended) = crossing.phase(Phase::Copy).context("nothing was copied")?;
    let took = ended.saturating_sub(began) as f64 / 1e3;
    let pace = crossing.bytes() as f64 / took;
    let bytes: Vec<_> = report(&crossing)?.vms.iter().map(|vm| vm.bytes).collect();
    let waited = crossing.longest_wait().as_secs_f64();
    println!("bytes {bytes:?} in {took:.1} s: {pace:.0} B/s; stood ready {waited:.3} s");
    // QEMU keeps to a bandwidth over tenths of a second, and the last bytes go without.
    ensure!(pace < 1.15 * TOGETHER, "{pace:.0} B/s");
    ensure!(bytes.iter().max() > bytes.iter().min(), "{bytes:?}");
    ensure!(waited < 0.1 * took, "one waited {waited:.3} of {took:.1} s");
    job.finish("halo")?;
    expect_verified(&mut job, LIMIT)?;
    let back = migrate(bed, "b", "a", &[])?;
    ensure!(back.is_done(), "back: {:?}", back.last.reason);
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

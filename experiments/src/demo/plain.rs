//! What the same moves cost without us: QEMU alone migrates the same VMs, with the same job in
//! them, which has no library and communicates over TCP.
//!
//! Plain means QEMU's own way: each VM for itself, all at the same time; QEMU decides when it
//! stops, by its downtime limit (300 ms, its default and ours), and the destination runs what
//! arrives. Only the bandwidth is that of the demo's other moves.

use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use serde::Serialize;
use symvirt_qmp::migration::{Endpoint, Incoming, Outgoing, Settings};
use symvirt_qmp::{Client, Timestamp};
use tokio::runtime::Runtime;

use super::leg::BANDWIDTH;
use super::probe;
use crate::job::{Job, Outcome};
use crate::lab::Lab;
use crate::lab::bare::Bare;
use crate::stall::{self, ClockOffset, Gap};
use crate::traffic::now_ms;

/// Time for a migration to end.
const LIMIT: Duration = Duration::from_secs(120);
/// Interval of looking.
const LOOK: Duration = Duration::from_millis(100);
/// For the job to communicate steadily, before and after a move.
const STEADY: Duration = Duration::from_secs(2);
/// Around a standstill, for the difference of the clocks.
const SLACK_MS: u64 = 300;

/// A gang moved by QEMU alone.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PlainMove {
    /// Where it was.
    pub from: &'static str,
    /// Where it went.
    pub to: &'static str,
    began_ms: u64,
    ended_ms: u64,
    /// Bytes that QEMU sent, all VMs.
    pub bytes: u64,
    /// The longest downtime of a VM, as QEMU counts it.
    pub downtime: Duration,
    /// From QEMU's STOP at the source to its RESUME at the destination, in milliseconds since
    /// 1970: of the VM that measures.
    stood_ms: (u64, u64),
    /// What the job saw: its longest gap there, with the standstill that its clock missed.
    pub stall: Duration,
    /// The longest gaps of all the way.
    gaps: Vec<Gap>,
}

impl PlainMove {
    /// For people.
    pub fn name(&self) -> String {
        format!("QEMU alone {} → {}", self.from, self.to)
    }

    /// From the first command to the last VM's arrival.
    pub fn took(&self) -> Duration {
        Duration::from_millis(self.ended_ms - self.began_ms)
    }

    fn saw(&mut self, gaps: &[Gap]) {
        let (stopped, resumed) = self.stood_ms;
        let way = self.began_ms..=self.ended_ms + SLACK_MS;
        let (from, to) = (stopped.saturating_sub(SLACK_MS), resumed + SLACK_MS);
        let there = gaps.iter().filter(|gap| gap.overlaps(from, to));
        let standstill = Duration::from_millis(resumed.saturating_sub(stopped));
        let longest = there.max_by_key(|gap| gap.length);
        self.stall = longest.map_or(standstill, |gap| gap.with_standstill(standstill));
        let gaps = gaps.iter().filter(|gap| way.contains(&gap.at_ms));
        self.gaps = gaps.copied().collect();
    }
}

/// There and back, before the daemons have any guests.
///
/// # Errors
/// If a migration or the job fails.
pub(super) fn run(lab: &Lab) -> anyhow::Result<(Vec<PlainMove>, Outcome)> {
    println!("\nQEMU alone: the same VMs and job, without SymVirt, for comparison");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (guests, mut vms) = lab.start_bare(&runtime, &|line| println!("  {line}"))?;
    let mut job = Job::start_plainly(&guests, &probe::program())?;
    let mut moves = Vec::new();
    let mut offsets = Vec::new();
    for (from, to) in [("a", "b"), ("b", "a")] {
        std::thread::sleep(STEADY);
        offsets.push(ClockOffset::of(&guests[0])?);
        println!("  {from} → {to}");
        let (moved, there) = travel(lab, &runtime, vms, from, to)?;
        moves.push(moved);
        vms = there;
    }
    std::thread::sleep(STEADY);
    job.finish("stall_probe")?;
    let outcome = job.wait(probe::ENDS).context("the probe does not end")?;
    for (moved, offset) in moves.iter_mut().zip(offsets) {
        moved.saw(&stall::gaps(&outcome.output, offset));
    }
    for vm in vms {
        runtime.block_on(vm.end());
    }
    Ok((moves, outcome))
}

fn travel(
    lab: &Lab,
    runtime: &Runtime,
    vms: Vec<Bare>,
    from: &'static str,
    to: &'static str,
) -> anyhow::Result<(PlainMove, Vec<Bare>)> {
    let host = lab.host(to).context("no such host")?;
    let settings = Settings {
        max_bandwidth: Some(BANDWIDTH),
        ..Settings::default()
    };
    let began_ms = now_ms();
    let arrivals = vms
        .iter()
        .map(|vm| runtime.block_on(lab.await_bare(vm, host)));
    let there = arrivals.collect::<Result<Vec<_>, _>>()?;
    let pairs = vms.iter().zip(&there);
    let moves = pairs.map(|(source, target)| one(source, target, &host.address, &settings));
    let moved = runtime.block_on(try_join_all(moves))?;
    let ended_ms = now_ms();
    for vm in vms {
        runtime.block_on(vm.end());
    }
    let first = moved.first().context("no VM")?;
    let result = PlainMove {
        from,
        to,
        began_ms,
        ended_ms,
        bytes: moved.iter().map(|one| one.bytes).sum(),
        downtime: moved
            .iter()
            .map(|one| one.downtime)
            .max()
            .unwrap_or_default(),
        stood_ms: first.stood_ms,
        stall: Duration::ZERO,
        gaps: Vec::new(),
    };
    Ok((result, there))
}

/// What became of one VM.
struct Moved {
    bytes: u64,
    downtime: Duration,
    stood_ms: (u64, u64),
}

async fn one(
    source: &Bare,
    target: &Bare,
    address: &str,
    settings: &Settings,
) -> anyhow::Result<Moved> {
    let name = &source.spec.name;
    let at = Endpoint::Tcp {
        host: address.to_owned(),
        port: 0,
    };
    let incoming = Incoming::listen(&target.monitor, &at, settings).await?;
    let port = incoming.port().await?.context("QEMU tells no port")?;
    let to = Endpoint::Tcp {
        host: address.to_owned(),
        port,
    };
    let stopped = seen(&source.monitor, "STOP");
    let resumed = seen(&target.monitor, "RESUME");
    let moving = async {
        let outgoing = Outgoing::start(&source.monitor, &to, settings, LOOK).await?;
        outgoing.finish(LIMIT).await
    };
    let (done, stopped, resumed) = tokio::join!(moving, stopped, resumed);
    let done = done.with_context(|| format!("migrate {name} by QEMU alone"))?;
    let missing = |event: &str| format!("{name}: QEMU does not say {event}");
    Ok(Moved {
        bytes: done.transferred,
        downtime: done.downtime.with_context(|| missing("its downtime"))?,
        stood_ms: (
            stopped.with_context(|| missing("STOP"))?,
            resumed.with_context(|| missing("RESUME"))?,
        ),
    })
}

/// When QEMU says that it stopped, or ran, in milliseconds since 1970.
async fn seen(monitor: &Client, name: &'static str) -> Option<u64> {
    let mut events = monitor.subscribe();
    let event = events.wait(name, LIMIT, |event| {
        (event.name == name).then_some(event.timestamp)
    });
    event.await.ok().flatten().map(|at: Timestamp| {
        let micros = at
            .seconds
            .saturating_mul(1_000_000)
            .saturating_add(at.microseconds);
        u64::try_from(micros / 1000).unwrap_or(0)
    })
}

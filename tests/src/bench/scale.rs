//! `symvirt-bench scale`: what a switch costs as the number of ranks grows.
//!
//! One program, of which each rank has two neighbours, on more and more ranks of this machine.
//! Times say how the processors are shared; what went out of band depends on the ranks alone.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::rehearsal::{Rehearsal, Spread, Times, mpirun};

/// How much is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Numbers of ranks
    #[arg(long, value_delimiter = ',', default_value = "2,4,8,16,32")]
    ranks: Vec<u32>,
    /// Seconds of the job of up to 8 ranks; those of more take longer in proportion
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Milliseconds from switch to switch
    #[arg(long, default_value_t = 100)]
    every: u64,
    /// Transports, as `rehearse --over` takes them
    #[arg(long, default_value = "tcp,shm")]
    over: String,
    /// The program of tests/apps: halo has two neighbours a rank, window open RMA windows
    #[arg(long, default_value = "halo")]
    program: String,
}

/// Ranks that have no processor of their own give up the one they have while they wait.
const OVERSUBSCRIBED: &[(&str, &str)] = &[("OMPI_MCA_mpi_yield_when_idle", "1")];

/// A number of ranks, and what its switches cost: times in microseconds.
#[derive(Debug, Serialize)]
struct Row {
    ranks: u32,
    switches: u64,
    abandoned: usize,
    prepare_us: Spread,
    gate_us: Spread,
    counters_us: Spread,
    drain_us: Spread,
    repost_us: Spread,
    release_us: Spread,
    job_stall_us: Spread,
    /// On the sockets of all ranks together, per switch.
    rank_frames: Spread,
    rank_bytes: Spread,
    /// Between the agent and the coordinator, per switch.
    guest_frames: Spread,
    guest_bytes: Spread,
}

/// Runs and prints.
///
/// # Errors
/// The first job that failed.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    println!(
        "{} over {}, a switch every {} ms; ms: median / p99; bytes and frames out of band, median",
        options.program, options.over, options.every
    );
    println!(
        "{:>5}{:>9}{:>19}{:>17}{:>17}{:>17}{:>17}{:>17}{:>9}{:>8}{:>9}{:>8}",
        "ranks",
        "switches",
        "prepare",
        "gate",
        "counters",
        "drain",
        "re-post",
        "release",
        "bytes",
        "frames",
        "a rank",
        "frames"
    );
    let mut rows = Vec::new();
    for &ranks in &options.ranks {
        let row = measure(ranks, options).with_context(|| format!("{ranks} ranks"))?;
        print(&row);
        rows.push(row);
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(true)
}

fn measure(ranks: u32, options: &Options) -> anyhow::Result<Row> {
    // Many ranks on few processors take long to start, and to switch.
    let seconds = options.seconds * u64::from(ranks).div_ceil(8);
    let limit = Duration::from_secs(seconds + 120);
    let seconds = seconds.to_string();
    let job = mpirun(
        ranks,
        &options.program,
        &["--seconds", &seconds],
        OVERSUBSCRIBED,
    );
    let rehearsal = Rehearsal::default()
        .every(Duration::from_millis(options.every))
        .over(&options.over)
        .order("mbb");
    let (outcome, report) = rehearsal.run(job, limit)?;
    let ended_well = outcome.ok_line(&options.program).is_some() && report.passed;
    ensure!(ended_well, "{:?}\n{}", report.failed, outcome.describe());
    let times: &Times = report
        .order("make-before-break")
        .context("there was no switch")?;
    Ok(Row {
        ranks,
        switches: report.switches,
        abandoned: report.abandoned.len(),
        prepare_us: times.prepare_us,
        gate_us: times.gate_us,
        counters_us: times.counters_us,
        drain_us: times.drain_us,
        repost_us: times.repost_us,
        release_us: times.release_us,
        job_stall_us: times.job_stall_us,
        rank_frames: times.rank_frames,
        rank_bytes: times.rank_bytes,
        guest_frames: times.guest_frames,
        guest_bytes: times.guest_bytes,
    })
}

fn print(row: &Row) {
    let ms = |spread: Spread| {
        let of = |us: u64| us as f64 / 1000.0;
        format!("{:.2} / {:.2}", of(spread.median), of(spread.p99))
    };
    let ranks = u64::from(row.ranks);
    println!(
        "{:>5}{:>9}{:>19}{:>17}{:>17}{:>17}{:>17}{:>17}{:>9}{:>8}{:>9}{:>8}",
        ranks,
        row.switches,
        ms(row.prepare_us),
        ms(row.gate_us),
        ms(row.counters_us),
        ms(row.drain_us),
        ms(row.repost_us),
        ms(row.release_us),
        row.rank_bytes.median,
        row.rank_frames.median,
        row.rank_bytes.median / ranks,
        row.rank_frames.median / ranks,
    );
}

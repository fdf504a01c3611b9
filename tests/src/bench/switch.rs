//! `symvirt-bench switch`: how long a job stands still for one switch, in both orders.
//!
//! Orders take turns within one run (`rehearse --order both`), so that both see the same machine.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::rehearsal::{Rehearsal, Report, Spread, Times, mpirun};

/// The target of DESIGN for the halo exchange: break-before-make over make-before-break.
const TARGET: f64 = 10.0;

struct Case {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    ranks: u32,
    /// Whether [`TARGET`] applies.
    judged: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "8 KB halo exchange, 2 ranks",
        program: "halo",
        arguments: &["--benchmark", "1"],
        ranks: 2,
        judged: true,
    },
    Case {
        name: "several MB in flight, 2 ranks",
        program: "bulk",
        arguments: &[],
        ranks: 2,
        judged: false,
    },
    Case {
        name: "several MB in flight, 4 ranks",
        program: "bulk",
        arguments: &[],
        ranks: 4,
        judged: false,
    },
];

/// How much is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Seconds of each of the three jobs
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Milliseconds from switch to switch
    #[arg(long, default_value_t = 100)]
    every: u64,
    /// Transports, as `rehearse --over` takes them
    #[arg(long, default_value = "tcp,shm")]
    over: String,
    /// Exit with failure when make-before-break is not 10 times shorter on the halo exchange
    #[arg(long)]
    strict: bool,
}

/// A part of the stall.
type Part = fn(&Times) -> Spread;

#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    switches: u64,
    abandoned: usize,
    /// Median stall of break-before-make over that of make-before-break.
    ratio: f64,
}

/// Runs and prints; false if the target is missed and is to be kept.
///
/// # Errors
/// The first job that failed.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let mut kept = true;
    let mut rows = Vec::new();
    for case in &CASES {
        let report = rehearse(case, options).with_context(|| case.name.to_owned())?;
        let ratio = print(case, &report)?;
        kept &= !case.judged || ratio >= TARGET;
        rows.push(Row {
            case: case.name,
            switches: report.switches,
            abandoned: report.abandoned.len(),
            ratio,
        });
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(kept || !options.strict)
}

fn rehearse(case: &Case, options: &Options) -> anyhow::Result<Report> {
    let seconds = options.seconds.to_string();
    let arguments = [case.arguments, &["--seconds", &seconds]].concat();
    let job = mpirun(case.ranks, case.program, &arguments, &[]);
    let limit = Duration::from_secs(options.seconds + 60);
    let rehearsal = Rehearsal::default()
        .every(Duration::from_millis(options.every))
        .over(&options.over);
    let (outcome, report) = rehearsal.run(job, limit)?;
    ensure!(
        outcome.ok_line(case.program).is_some(),
        "{}",
        outcome.describe()
    );
    ensure!(report.passed, "the rehearsal failed: {:?}", report.failed);
    Ok(report)
}

fn print(case: &Case, report: &Report) -> anyhow::Result<f64> {
    let order = |name: &str| {
        report
            .order(name)
            .with_context(|| format!("no switch was {name}"))
    };
    let (make, wait) = (order("make-before-break")?, order("break-before-make")?);
    println!("\n{} (ms: median / p99 / max)", case.name);
    println!(
        "{:<14}{:>30}{:>30}",
        "", "make-before-break", "break-before-make"
    );
    println!(
        "{:<14}{:>30}{:>30}",
        "switches", make.switches, wait.switches
    );
    let rows: [(&str, Part); 5] = [
        ("job stall", |times| times.job_stall_us),
        ("  gate", |times| times.gate_us),
        ("  counters", |times| times.counters_us),
        ("  drain", |times| times.drain_us),
        ("  re-post", |times| times.repost_us),
    ];
    for (name, of) in rows {
        println!(
            "{name:<14}{:>30}{:>30}",
            milliseconds(of(make)),
            milliseconds(of(wait))
        );
    }
    println!(
        "the rest of break-before-make is spent on releasing and building, with the gate closed"
    );
    // A stall below the clock's resolution counts as one microsecond.
    let ratio = wait.job_stall_us.median.max(1) as f64 / make.job_stall_us.median.max(1) as f64;
    println!("ratio of the median job stalls: {ratio:.1}");
    Ok(ratio)
}

fn milliseconds(spread: Spread) -> String {
    let of = |microseconds: u64| microseconds as f64 / 1000.0;
    format!(
        "{:.3} / {:.3} / {:.3}",
        of(spread.median),
        of(spread.p99),
        of(spread.max)
    )
}

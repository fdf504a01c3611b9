//! `symvirt-bench overhead`: what a message costs more with the library than without.
//!
//! "With" is a member of a gang (under `rehearse`, with no switch), so that every call is
//! translated and every message counted; a job without an agent pays less.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::statistics::Ratio;
use crate::apps;
use crate::job::{self, Outcome};
use crate::rehearsal::{Rehearsal, mpirun};

/// Time within which one measurement has ended unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// One thing that is measured.
#[derive(Debug)]
struct Case {
    name: &'static str,
    /// Most that DESIGN allows; `None` where it names no limit.
    limit: Option<f64>,
    environment: &'static [(&'static str, &'static str)],
    /// Ranks under mpirun, or none for the plain UCP program.
    ranks: Option<u32>,
    arguments: &'static [&'static str],
}

impl Case {
    /// Only a process that waits for nobody executes the same instructions in every run.
    fn is_counted(&self) -> bool {
        self.arguments.contains(&"--alone")
    }
}

const SELF: &[(&str, &str)] = &[("UCX_TLS", "self")];
const SHM: &[(&str, &str)] = &[("UCX_TLS", "posix,self")];
const TCP: &[(&str, &str)] = &[("UCX_TLS", "tcp,self"), ("UCX_NET_DEVICES", "lo")];
/// Shorter than a scheduler's slice, so that the shortest batch was not interrupted.
const SHORT_BATCH: &[&str] = &["--batch", "100"];
const STREAM: &[&str] = &["--stream", "1", "--batch", "16"];
/// 1.0 / 0.99: bandwidth is compared by the time of a message.
const BANDWIDTH: Option<f64> = Some(1.0 / 0.99);

const CASES: &[Case] = &[
    case("8 B, self, UCP", None, SELF, None, &["--alone", "1"]),
    case("8 B, self, MPI", Some(1.25), SELF, Some(1), &[]),
    case("8 B, shm, UCP", None, SHM, None, SHORT_BATCH),
    case("8 B, shm, MPI", Some(1.03), SHM, Some(2), SHORT_BATCH),
    case("8 B, tcp, UCP", None, TCP, None, SHORT_BATCH),
    case("8 B, tcp, MPI", Some(1.005), TCP, Some(2), SHORT_BATCH),
    case("1 MiB stream, shm, MPI", BANDWIDTH, SHM, Some(2), STREAM),
    case("1 MiB stream, tcp, MPI", BANDWIDTH, TCP, Some(2), STREAM),
    case("put, self", Some(1.25), SELF, Some(1), &["--put", "1"]),
    case("get, self", Some(1.25), SELF, Some(1), &["--get", "1"]),
    case(
        "fetch-and-add, self",
        Some(1.25),
        SELF,
        Some(1),
        &["--fetch", "1"],
    ),
    case(
        "put, shm",
        Some(1.03),
        SHM,
        Some(2),
        &["--put", "1", "--batch", "100"],
    ),
    case(
        "get, shm",
        Some(1.03),
        SHM,
        Some(2),
        &["--get", "1", "--batch", "100"],
    ),
    case(
        "fetch-and-add, shm",
        Some(1.03),
        SHM,
        Some(2),
        &["--fetch", "1", "--batch", "100"],
    ),
    case(
        "put, tcp",
        Some(1.005),
        TCP,
        Some(2),
        &["--put", "1", "--batch", "100"],
    ),
    case(
        "get, tcp",
        Some(1.005),
        TCP,
        Some(2),
        &["--get", "1", "--batch", "100"],
    ),
    case(
        "fetch-and-add, tcp",
        Some(1.005),
        TCP,
        Some(2),
        &["--fetch", "1", "--batch", "100"],
    ),
    case(
        "8 B, self, MULTIPLE",
        Some(1.25),
        SELF,
        Some(1),
        &["--threads", "1"],
    ),
    case(
        "8 B, shm, MULTIPLE",
        Some(1.03),
        SHM,
        Some(2),
        &["--threads", "1", "--batch", "100"],
    ),
    case(
        "8 B, tcp, MULTIPLE",
        Some(1.005),
        TCP,
        Some(2),
        &["--threads", "1", "--batch", "100"],
    ),
];

const fn case(
    name: &'static str,
    limit: Option<f64>,
    environment: &'static [(&'static str, &'static str)],
    ranks: Option<u32>,
    arguments: &'static [&'static str],
) -> Case {
    Case {
        name,
        limit,
        environment,
        ranks,
        arguments,
    }
}

/// How much is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Pairs of runs, with and without the library
    #[arg(long, default_value_t = 10)]
    pairs: u32,
    /// Seconds of one run
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Only the cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Also count instructions a message to oneself, with valgrind
    #[arg(long)]
    instructions: bool,
    /// Exit with failure when a limit of the design is exceeded
    #[arg(long)]
    strict: bool,
}

/// What the benchmark program prints.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Line {
    median_ns: f64,
    shortest_ns: f64,
}

/// The result of one case.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    /// Nanoseconds a message, median of the medians without the library.
    without_ns: f64,
    /// Ratio of the median batch of each run.
    median: Ratio,
    /// Ratio of the shortest batch of each run: less noise of the machine.
    shortest: Ratio,
    /// The shortest batch of all runs with, over the shortest of all without: what is left of
    /// the ratio when something else keeps the machine busy.
    best: f64,
    limit: Option<f64>,
    instructions: Option<Instructions>,
}

/// User-space instructions of one message.
#[derive(Clone, Copy, Debug, Serialize)]
struct Instructions {
    without: f64,
    with: f64,
}

/// Runs and prints; false if a limit is exceeded and limits are to be kept.
///
/// # Errors
/// The first run that failed.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let wanted = |case: &&Case| {
        options
            .only
            .as_deref()
            .is_none_or(|part| case.name.contains(part))
    };
    println!(
        "{:<24}{:>12}{:>30}{:>30}{:>8}{:>8}",
        "", "without", "ratio of medians", "of shortest batches", "best", "limit"
    );
    let mut kept = true;
    let mut rows = Vec::new();
    for case in CASES.iter().filter(wanted) {
        let row = measure(case, options).with_context(|| case.name.to_owned())?;
        print(&row);
        kept &= row.limit.is_none_or(|limit| row.shortest.median <= limit);
        rows.push(row);
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(kept || !options.strict)
}

fn measure(case: &Case, options: &Options) -> anyhow::Result<Row> {
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        // Who is first changes, so that a slow drift of the machine favours nobody.
        let (with, without);
        if pair % 2 == 0 {
            without = once(case, options, false)?;
            with = once(case, options, true)?;
        } else {
            with = once(case, options, true)?;
            without = once(case, options, false)?;
        }
        pairs.push((with, without));
    }
    let ratio = |of: fn(&Line) -> f64| {
        Ratio::of_pairs(pairs.iter().map(|(with, without)| (of(with), of(without))))
            .context("--pairs must be at least 1")
    };
    let mut times: Vec<f64> = pairs.iter().map(|(_, without)| without.median_ns).collect();
    times.sort_by(f64::total_cmp);
    Ok(Row {
        case: case.name,
        without_ns: super::statistics::median(&times).unwrap_or_default(),
        median: ratio(|line| line.median_ns)?,
        shortest: ratio(|line| line.shortest_ns)?,
        best: least(pairs.iter().map(|(with, _)| with))
            / least(pairs.iter().map(|(_, without)| without)),
        limit: case.limit,
        instructions: if options.instructions && case.is_counted() {
            Some(count(case)?)
        } else {
            None
        },
    })
}

fn least<'a>(lines: impl Iterator<Item = &'a Line>) -> f64 {
    lines
        .map(|line| line.shortest_ns)
        .fold(f64::INFINITY, f64::min)
}

fn print(row: &Row) {
    let limit = row
        .limit
        .map_or_else(|| "-".to_owned(), |limit| format!("{limit:.3}"));
    println!(
        "{:<24}{:>9.1} ns{:>30}{:>30}{:>8.3}{:>8}",
        row.case,
        row.without_ns,
        row.median.to_string(),
        row.shortest.to_string(),
        row.best,
        limit
    );
    if let Some(count) = row.instructions {
        println!(
            "{:<24}{:>9.1} instructions a message without, {:.1} with: {:+.1}",
            "",
            count.without,
            count.with,
            count.with - count.without
        );
    }
}

fn once(case: &Case, options: &Options, with: bool) -> anyhow::Result<Line> {
    let seconds = options.seconds.to_string();
    let stdout = run_case(case, &["--seconds", &seconds], with)?;
    let line = stdout
        .lines()
        .find(|line| line.starts_with("{\"program\":\"bench\""));
    let line = line.with_context(|| format!("no measurement in:\n{stdout}"))?;
    serde_json::from_str(line).with_context(|| format!("read {line}"))
}

/// Runs the program of a case; returns what it printed.
fn run_case(case: &Case, more: &[&str], with: bool) -> anyhow::Result<String> {
    let arguments = [case.arguments, more].concat();
    let words = match case.ranks {
        Some(ranks) => mpirun(ranks, "bench", &arguments, case.environment),
        None => {
            let variables = case
                .environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            let program = apps::program("ucp/bench").to_string_lossy().into_owned();
            let arguments = arguments.iter().map(|&argument| argument.to_owned());
            ["env".to_owned()]
                .into_iter()
                .chain(variables)
                .chain([program])
                .chain(arguments)
                .collect()
        }
    };
    Ok(run_words(&words, with)?.stdout)
}

fn run_words(words: &[String], with: bool) -> anyhow::Result<Outcome> {
    let outcome = if with {
        // Without switches a rehearsal does not pass; the program's own OK counts.
        Rehearsal::default().switches(0).run(words, LIMIT)?.0
    } else {
        job::run(Command::new(&words[0]).args(&words[1..]), LIMIT)?
    };
    ensure!(outcome.ok_line("bench").is_some(), "{}", outcome.describe());
    Ok(outcome)
}

/// Counts instructions of runs of two lengths; the difference is free of start and end.
fn count(case: &Case) -> anyhow::Result<Instructions> {
    const SHORT: u32 = 20;
    const LONG: u32 = 120;
    const BATCH: f64 = 1000.0;
    let of = |with: bool| -> anyhow::Result<f64> {
        let more = counted(case, LONG, with)? - counted(case, SHORT, with)?;
        Ok(more / (f64::from(LONG - SHORT) * BATCH))
    };
    Ok(Instructions {
        without: of(false)?,
        with: of(true)?,
    })
}

/// Instructions of a whole run with so many batches, by callgrind: perf needs counters that
/// virtual machines seldom have.
fn counted(case: &Case, batches: u32, with: bool) -> anyhow::Result<f64> {
    let environment = case
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let valgrind = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
    ];
    let words: Vec<String> = ["env".to_owned()]
        .into_iter()
        .chain(environment)
        .chain(valgrind.map(str::to_owned))
        .chain([apps::program("ucp/bench").to_string_lossy().into_owned()])
        .chain(case.arguments.iter().map(|&argument| argument.to_owned()))
        .chain(["--rounds".to_owned(), batches.to_string()])
        .collect();
    let outcome = run_words(&words, with)?;
    // "==123== Collected : 67900039"
    let collected = outcome
        .stderr
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.context("callgrind says no number")?;
    number
        .trim()
        .parse()
        .with_context(|| format!("callgrind says {number:?}"))
}

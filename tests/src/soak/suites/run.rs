//! One test of the suite: switched, and by itself where that fails.

use std::path::Path;
use std::time::Duration;

use super::build::Built;
use super::testlist::Test;
use super::verdict::{Shown, judge};
use crate::job::Outcome;
use crate::mpi::{Job, Mpi};
use crate::rehearsal::Rehearsal;

/// How often both are repeated when only we failed.
const REPEATED: u32 = 3;
/// Many of the suite's programs end in less than a second.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// By how much longer a test may take that only took too long among switches, before that is a hang.
const PATIENCE: u32 = 8;
/// A part of the time a switched job is on this: programs whose ranks spin for each other take a
/// hundred times as long there, also by themselves.
const SLOW: [(&str, &str); 1] = [("UCX_TLS", "tcp")];
const OVER: [&str; 3] = ["tcp", "posix,cma,self@all", "posix,self@all"];

/// What became of a test.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It passed among so many switches.
    Passed(u64),
    /// It passed, but took longer than the limit, which it keeps by itself.
    Slow(u64),
    /// It fails by itself, too.
    FailsBare,
    /// It does not compile with this MPI.
    NotBuilt,
    /// It failed only with us.
    Ours(String),
}

/// Runs a test within the suite's limit and `longest`.
///
/// # Errors
/// When it could not be run.
pub fn run(mpi: Mpi, built: &Built, test: &Test, longest: Duration) -> anyhow::Result<Fate> {
    let Ok((folder, program)) = built.program(test) else {
        return Ok(Fate::NotBuilt);
    };
    let job = |more: &[(&str, &str)]| self::job(mpi, test, &folder, &program, more);
    let (job, slow) = (job(&[]), job(&SLOW));
    let limit = test.limit.min(longest);
    let (first, switches) = switched(&job, test, limit)?;
    let Err(why) = first else {
        return Ok(Fate::Passed(switches));
    };
    if bare(&job, test, limit)?.is_err() || bare(&slow, test, limit)?.is_err() {
        return Ok(Fate::FailsBare);
    }
    if why.timed_out
        && let (Ok(()), switches) = switched(&job, test, limit * PATIENCE)?
    {
        return Ok(Fate::Slow(switches));
    }
    let (mut ours, mut alone) = (1, 0);
    for _ in 0..REPEATED {
        ours += u32::from(switched(&job, test, limit)?.0.is_err());
        alone += u32::from(bare(&job, test, limit)?.is_err());
    }
    let all = REPEATED + 1;
    Ok(Fate::Ours(format!(
        "failed {ours} of {all} times, {alone} of {all} without switches: {}",
        why.what
    )))
}

fn job(mpi: Mpi, test: &Test, folder: &Path, program: &Path, more: &[(&str, &str)]) -> Job {
    let (folder, program) = (folder.to_string_lossy(), program.to_string_lossy());
    let mut words = vec!["--wdir", &folder];
    words.extend(test.launcher.iter().map(String::as_str));
    words.push(&program);
    let arguments: Vec<&str> = test.arguments.iter().map(String::as_str).collect();
    let environment: Vec<(&str, &str)> = test
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain(more.iter().copied())
        .collect();
    mpi.start(test.ranks, &words, &arguments, &environment)
}

type Judged = Result<(), Failure>;

struct Failure {
    what: String,
    timed_out: bool,
}

fn bare(job: &Job, test: &Test, limit: Duration) -> std::io::Result<Judged> {
    let outcome = job.run(limit)?;
    let code = outcome.status.and_then(|status| status.code());
    Ok(verdict(test, &outcome, code))
}

fn switched(job: &Job, test: &Test, limit: Duration) -> anyhow::Result<(Judged, u64)> {
    let rehearsal = Rehearsal::default()
        .over_each(&OVER)
        .between(BETWEEN.0, BETWEEN.1)
        .at(job.place);
    let (outcome, report) = rehearsal.run(&job.words, limit)?;
    // Not the rehearsal's own code: it is no success if the job was over before the first switch.
    let mut judged = verdict(test, &outcome, report.job_exit_code);
    if judged.is_ok() && !report.failed.is_empty() {
        judged = Err(Failure {
            what: format!("failed switches: {:?}", report.failed),
            timed_out: false,
        });
    }
    Ok((judged, report.switches))
}

fn verdict(test: &Test, outcome: &Outcome, code: Option<i32>) -> Judged {
    let shown = Shown {
        said: &outcome.stdout,
        code,
        timed_out: outcome.status.is_none(),
    };
    let judged = judge(test.promise, shown);
    judged.map_err(|why| Failure {
        what: format!("{why}\n{}", outcome.describe()),
        timed_out: shown.timed_out,
    })
}

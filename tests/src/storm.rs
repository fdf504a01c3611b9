//! A job in the storm of switches, and what is asked of it.
//!
//! A run fails when the program finds a wrong byte, order or status, when it does not end, when a
//! switch fails, or when too few switches happened for the run to mean anything. Programs run one
//! at a time: ranks that spin on two cores leave nothing for a neighbour. How long a switch takes
//! is not judged here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::job::Outcome;
use crate::mpi::Mpi;
use crate::rehearsal::{Rehearsal, Report};
use crate::setting::Setting;

/// No run takes longer than this unless it hangs.
const LIMIT: Duration = Duration::from_secs(90);
/// Seconds that a program works; see [`FEWEST`].
pub const SECONDS: &str = "3";
/// Where that was too short for [`FEWEST`] switches.
const LONGER: &str = "20";
/// A switch every 50 ms would make 60 in 3 s. With four ranks on two cores a switch may take
/// longer than its interval; this many a run needs to mean something.
pub const FEWEST: u64 = 8;

/// One job at a time, also when the test runner has many threads: for as long as it is held.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `job`, alone; again if it [`never_started`].
///
/// # Panics
/// When there is no report.
pub fn rehearse(name: &str, rehearsal: &Rehearsal, job: &[String]) -> (Outcome, Report) {
    const ATTEMPTS: u32 = 5;
    let _turn = alone();
    let run = || {
        rehearsal
            .run(job, LIMIT)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let mut ended = run();
    for _ in 1..ATTEMPTS {
        if !never_started(&ended.0) {
            break;
        }
        println!("{name}: a process of it never got through PMIx_Init, once more");
        ended = run();
    }
    ended
}

/// Whether a process of the job still waited for the launcher's first answer at the time limit, long
/// before it could come to UCX and to us. With Debian 12's `PMIx` 4.2.2 that happens without us as
/// well, on a busy machine to one in fifty processes that `MPI_Comm_spawn` starts two at a time
/// (openpmix issues 2735 and 2967).
fn never_started(outcome: &Outcome) -> bool {
    outcome.hung_in("PMIx_Init")
}

/// As [`rehearse`]; a job that was right and had fewer switches than `fewest` runs once more, and
/// longer: how long a switch takes on a busy machine is not judged here.
fn rehearse_until(
    name: &str,
    rehearsal: &Rehearsal,
    job: &[String],
    fewest: u64,
) -> (Outcome, Report) {
    let (outcome, report) = rehearse(name, rehearsal, job);
    if verdict(name, &outcome, &report, 0).is_err() || report.switches >= fewest {
        return (outcome, report);
    }
    println!("{name}: only {} switches, once more", report.switches);
    let mut longer = job.to_vec();
    if let Some(at) = longer.iter().position(|word| word == "--seconds") {
        longer[at + 1] = LONGER.to_owned();
    }
    rehearse(name, rehearsal, &longer)
}

/// Runs `job`, which starts `program`, in the usual storm.
///
/// # Panics
/// As [`judge`].
pub fn survives_as(program: &str, job: &[String], fewest: u64) {
    let (outcome, report) = rehearse_until(program, &Rehearsal::default(), job, fewest);
    judge(program, &outcome, &report, fewest);
    println!(
        "{}: {} switches",
        ok_line(program, &outcome).unwrap_or_default(),
        report.switches
    );
}

/// Runs a program of `tests/apps` for [`SECONDS`] in the storm of a setting.
///
/// # Panics
/// As [`judge`].
pub fn survives(mpi: Mpi, program: &str, ranks: u32, setting: &Setting) {
    let job = mpi.job(ranks, program, &["--seconds", SECONDS], setting.environment);
    let (rehearsal, fewest) = (setting.rehearsal(mpi), setting.fewest());
    let (outcome, report) = rehearse_until(program, &rehearsal, &job.words, fewest);
    judge(program, &outcome, &report, fewest);
}

fn ok_line<'a>(program: &str, outcome: &'a Outcome) -> Option<&'a str> {
    outcome.ok_line(program.rsplit('/').next().unwrap_or(program))
}

/// Holds a run against the program's promise.
///
/// # Panics
/// When it was not kept, or switches failed, or there were fewer than `fewest`.
pub fn judge(program: &str, outcome: &Outcome, report: &Report, fewest: u64) {
    if let Err(why) = verdict(program, outcome, report, fewest) {
        panic!("{program}: {why}");
    }
}

/// As [`judge`].
///
/// # Errors
/// Which of these it is.
pub fn verdict(
    program: &str,
    outcome: &Outcome,
    report: &Report,
    fewest: u64,
) -> Result<(), String> {
    if !outcome.succeeded() {
        return Err(outcome.describe());
    }
    if ok_line(program, outcome).is_none() {
        return Err(format!("it said no OK: {}", outcome.describe()));
    }
    if !report.failed.is_empty() {
        return Err(format!("failed switches: {:?}", report.failed));
    }
    if report.switches < fewest {
        return Err(format!(
            "only {} switches, {fewest} are expected; abandoned: {:?}\n{}",
            report.switches,
            report.abandoned,
            outcome.describe()
        ));
    }
    Ok(())
}

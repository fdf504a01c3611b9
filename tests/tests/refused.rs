//! What the library does not move yet: the job runs on, right and unswitched, and whoever asks is
//! told why.

use std::time::Duration;

use symvirt_tests::rehearsal::{Rehearsal, mpirun};

#[test]
fn a_job_with_windows_runs_on_unswitched_and_the_reason_is_named() {
    let job = mpirun(2, "window", &["--seconds", "2"], &[]);
    let (outcome, report) = Rehearsal::default()
        .run(&job, Duration::from_secs(60))
        .unwrap_or_else(|error| panic!("{error}"));
    let told = outcome.describe();
    assert!(
        outcome.ok_line("window").is_some(),
        "the job was harmed: {told}"
    );
    assert!(
        report.failed.is_empty() && report.ranks_lost.is_empty(),
        "{told}"
    );
    let named = |reason: &String| reason.contains("features") && reason.contains("RMA");
    assert!(
        report.abandoned.iter().any(named),
        "no reason is given: {told}"
    );
}

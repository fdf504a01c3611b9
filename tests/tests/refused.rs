//! What the library does not move: the job runs on, right and unswitched, and whoever asks is
//! told why.

use std::time::Duration;

use symvirt_tests::rehearsal::Rehearsal;

#[test]
fn a_job_with_streams_runs_on_unswitched_and_the_reason_is_named() {
    let program = symvirt_tests::apps::program("ucp/streams");
    let job = [
        program.to_string_lossy().into_owned(),
        "--seconds".to_owned(),
        "2".to_owned(),
    ];
    let (outcome, report) = Rehearsal::default()
        .run(&job, Duration::from_secs(60))
        .unwrap_or_else(|error| panic!("{error}"));
    let told = outcome.describe();
    assert!(
        outcome.ok_line("streams").is_some(),
        "the job was harmed: {told}"
    );
    assert!(
        report.failed.is_empty() && report.ranks_lost.is_empty(),
        "{told}"
    );
    let named = |reason: &String| reason.contains("features") && reason.contains("streams");
    assert!(
        report.abandoned.iter().any(named),
        "no reason is given: {told}"
    );
}

//! What the library does not move: the job runs on, right and unswitched, and whoever asks is
//! told why.

use std::time::Duration;

use symvirt_tests::rehearsal::Rehearsal;

/// Runs a program of `tests/apps`: it must be unharmed, and never switched for a reason that
/// contains all of `words`.
fn runs_on_unswitched(program: &str, words: &[&str]) {
    let job = [
        symvirt_tests::apps::program(program)
            .to_string_lossy()
            .into_owned(),
        "--seconds".to_owned(),
        "2".to_owned(),
    ];
    let (outcome, report) = Rehearsal::default()
        .run(&job, Duration::from_secs(60))
        .unwrap_or_else(|error| panic!("{error}"));
    let told = outcome.describe();
    let name = program.rsplit('/').next().unwrap_or(program);
    assert!(
        outcome.ok_line(name).is_some(),
        "the job was harmed: {told}"
    );
    assert!(
        report.failed.is_empty() && report.ranks_lost.is_empty(),
        "{told}"
    );
    let is_named = |reason: &String| words.iter().all(|word| reason.contains(word));
    assert!(
        report.abandoned.iter().any(is_named),
        "no reason is given: {told}"
    );
}

#[test]
fn a_job_with_streams_runs_on_unswitched_and_the_reason_is_named() {
    runs_on_unswitched("ucp/streams", &["features", "streams"]);
}

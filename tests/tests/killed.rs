//! A rank killed with SIGKILL, at whatever moment of a switch: the job fails as it would without
//! the library, the rehearsal names the rank, and nothing hangs.
//!
//! Switches follow each other without a pause, so that the death meets every phase over the runs.

use std::time::Duration;

use symvirt_tests::rehearsal::{Rehearsal, mpirun};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_killed_rank_ends_the_job_and_the_rehearsal() {
    let rehearsal = Rehearsal::default().every(Duration::from_millis(1));
    for (ranks, after) in [
        (2, "0.3"),
        (2, "0.41"),
        (2, "0.53"),
        (4, "0.37"),
        (4, "0.49"),
        (4, "0.61"),
        (4, "0.72"),
    ] {
        let job = mpirun(ranks, "killed", &["--after", after], &[]);
        let (outcome, report) = rehearsal
            .run(&job, LIMIT)
            .unwrap_or_else(|error| panic!("{error}"));
        let told = outcome.describe();
        assert!(
            outcome.status.is_some(),
            "the rehearsal did not end by itself: {told}"
        );
        assert!(
            !outcome.succeeded() && !report.passed,
            "a dead rank was not noticed: {told}"
        );
        assert!(outcome.ok_line("killed").is_none(), "{told}");
        assert!(
            !report.ranks_lost.is_empty(),
            "the lost rank is not named: {told}"
        );
        assert!(report.switches > 0, "no switch happened before: {told}");
    }
}

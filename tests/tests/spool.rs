//! Drained messages stay within the spool's limit: a switch that would need more is abandoned on
//! all ranks, with the reason; the job goes on, and later switches succeed.

use symvirt_tests::job::Outcome;
use symvirt_tests::rehearsal::{Rehearsal, Report, mpirun};
use symvirt_tests::storm::{FEWEST, judge, rehearse};

const SECONDS: &str = "4";

fn flood(ranks: u32, order: &str, environment: &[(&str, &str)]) -> (Outcome, Report) {
    let job = mpirun(ranks, "flood", &["--seconds", SECONDS], environment);
    rehearse("flood", &Rehearsal::default().order(order), &job)
}

/// A limit of 256 KiB, where megabytes wait half of the time.
fn is_bounded(ranks: u32, order: &str) {
    let (outcome, report) = flood(ranks, order, &[("SYMVIRT_SPOOL_LIMIT", "256K")]);
    judge("flood", &outcome, &report, FEWEST);
    let words = [
        "rank ",
        "flood",
        "of 262144 (SYMVIRT_SPOOL_LIMIT)",
        "raise the limit",
    ];
    let full = |reason: &&String| words.iter().all(|word| reason.contains(word));
    let abandoned = report.abandoned.iter().filter(full).count();
    assert!(
        abandoned > 0,
        "{abandoned} switches told of a full spool: {:?}\n{}",
        report.abandoned,
        outcome.describe()
    );
    for times in &report.orders {
        assert!(times.spool_peak <= 256 << 10, "{times:?}");
    }
    println!("{} switches, {abandoned} beyond the limit", report.switches);
}

#[test]
fn a_full_spool_undoes_the_switch_on_2_ranks() {
    is_bounded(2, "mbb");
}

#[test]
fn a_full_spool_undoes_the_switch_on_4_ranks() {
    is_bounded(4, "mbb");
}

#[test]
fn a_full_spool_undoes_a_hold() {
    is_bounded(2, "bbm");
}

/// Nothing is refused below the limit, and no file is left behind.
#[test]
fn messages_may_be_kept_in_files() {
    let folder = std::env::temp_dir().join(format!("symvirt-spool-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make a folder");
    let place = folder.to_string_lossy().into_owned();
    let (outcome, report) = flood(2, "both", &[("SYMVIRT_SPOOL_DIR", &place)]);
    judge("flood", &outcome, &report, FEWEST);
    let peak = report.orders.iter().map(|times| times.spool_peak).max();
    assert!(peak.is_some_and(|peak| peak > 1 << 20), "{report:?}");
    let refused = report
        .abandoned
        .iter()
        .find(|reason| reason.contains("spool"));
    assert_eq!(refused, None);
    std::fs::remove_dir(&folder).expect("the folder is empty");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let (outcome, report) = flood(2, "mbb", &[("SYMVIRT_SPOOL_DIR", "/nonexistent/spool")]);
    assert!(outcome.succeeded(), "{}", outcome.describe());
    let words = ["rank ", "/nonexistent/spool (SYMVIRT_SPOOL_DIR)"];
    let named = |reason: &String| words.iter().all(|word| reason.contains(word));
    assert!(report.abandoned.iter().any(named), "{}", outcome.describe());
}

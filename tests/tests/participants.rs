//! What `symvirt.h` promises: other users of RDMA in the process take part in every switch, may
//! refuse it, and regions hold it; each by name.

use symvirt_tests::job::Outcome;
use symvirt_tests::rehearsal::{Rehearsal, Report, mpirun};
use symvirt_tests::storm::{FEWEST, judge, rehearse};

fn run(arguments: &[&str], environment: &[(&str, &str)], order: &str) -> (Outcome, Report) {
    let arguments = [&["--seconds", "3"], arguments].concat();
    let job = mpirun(2, "participant", &arguments, environment);
    rehearse("participant", &Rehearsal::default().order(order), &job)
}

/// A figure of the line that each rank ends with.
fn figures(outcome: &Outcome, name: &str) -> Vec<u64> {
    let lines = outcome.stdout.lines().filter(|line| line.contains(name));
    let before = |line: &str| {
        let words: Vec<&str> = line.split([' ', ',']).collect();
        let at = words.iter().position(|word| *word == name)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    lines.filter_map(before).collect()
}

fn takes_part(order: &str) {
    let (outcome, report) = run(&[], &[], order);
    judge("participant", &outcome, &report, FEWEST);
    let releases = figures(&outcome, "releases");
    assert_eq!(releases.len(), 2, "{}", outcome.describe());
    for count in releases {
        // That they take part in every switch the program sees for itself. Those before they were
        // added and after they were removed have none: few, unless the machine is busy.
        assert!(
            2 * count >= report.switches && count <= report.switches,
            "{count} releases in {} switches",
            report.switches
        );
    }
    for seen in ["tcp seen", "shm seen"] {
        assert!(outcome.stdout.contains(seen), "{}", outcome.describe());
    }
}

#[test]
fn participants_release_and_acquire_in_every_switch() {
    takes_part("mbb");
}

#[test]
fn participants_release_and_acquire_in_every_hold() {
    takes_part("bbm");
}

#[test]
fn a_refusal_undoes_the_switch_by_name() {
    for order in ["mbb", "bbm"] {
        let (outcome, report) = run(&["--refuse", "1"], &[], order);
        judge("participant", &outcome, &report, 3);
        let words = "participant index refuses: a checkpoint is being written";
        let refused = report
            .abandoned
            .iter()
            .filter(|reason| reason.contains("rank ") && reason.contains(words))
            .count();
        assert!(refused >= 3, "{refused}: {}", outcome.describe());
        let aborts: u64 = figures(&outcome, "aborts").iter().sum();
        assert!(aborts > 0, "{}", outcome.describe());
    }
}

/// That no switch happens in the region the program sees for itself.
#[test]
fn a_region_without_end_undoes_the_switch_by_name() {
    for order in ["mbb", "bbm"] {
        let limit = [("SYMVIRT_HOLD_LIMIT", "0.3")];
        let (outcome, report) = run(&["--endless", "1"], &limit, order);
        assert!(
            outcome.ok_line("participant").is_some(),
            "{}",
            outcome.describe()
        );
        let words = [
            "rank 0 ",
            "\"endless region\"",
            "300ms (SYMVIRT_HOLD_LIMIT)",
        ];
        let named = |reason: &&String| words.iter().all(|word| reason.contains(word));
        let named = report.abandoned.iter().filter(named).count();
        assert!(named >= 3, "{named}: {}", outcome.describe());
        assert_eq!(report.failed, Vec::<String>::new());
    }
}

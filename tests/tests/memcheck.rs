//! The library under Valgrind's memcheck, in a process that is switched: no access to memory that is
//! not there, no decision by bytes that nobody has written, no memory freed twice.
//!
//! Programs without MPI, which by themselves give no report; what is no fault of ours stands, with
//! reasons, in `memcheck.supp`. Leaks are not judged: handles belong to the application.

use std::path::Path;
use std::time::Duration;

use symvirt_tests::rehearsal::Rehearsal;
use symvirt_tests::storm::{judge, rehearse};

/// A program takes twenty times as long under memcheck, and so does a switch.
const FEWEST: u64 = 2;

fn is_clean(program: &str, arguments: &[&str]) {
    let suppressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("memcheck.supp");
    let suppressions = format!("--suppressions={}", suppressions.display());
    let path = symvirt_tests::apps::program(program);
    let path = path.to_string_lossy();
    let valgrind = [
        "valgrind",
        "--quiet",
        // One thread at a time runs under Valgrind: a fair lock lets the helper have its turn.
        "--fair-sched=yes",
        "--error-exitcode=9",
        "--num-callers=30",
        &suppressions,
        &path,
    ];
    let words = valgrind.iter().chain(arguments);
    let job: Vec<String> = words.map(|&word| word.to_owned()).collect();
    let rehearsal = Rehearsal::default().every(Duration::from_millis(200));
    let (outcome, report) = rehearse(program, &rehearsal, &job);
    // Reports are in what the job says.
    judge(program, &outcome, &report, FEWEST);
}

#[test]
fn tagged_messages_in_rare_forms() {
    is_clean("ucp/forms", &["--alone", "1", "--seconds", "8"]);
}

#[test]
fn active_messages() {
    is_clean("ucp/active", &["--alone", "1", "--seconds", "8"]);
}

#[test]
fn remote_memory_and_atomics() {
    is_clean("ucp/remote", &["--seconds", "8"]);
}

#[test]
fn memory_that_comes_and_goes() {
    is_clean("ucp/mapped", &["--seconds", "8"]);
}

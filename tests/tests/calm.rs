//! The calm: the programs of `tests/apps` are right by themselves, and the library changes nothing
//! for a job that has no agent.
//!
//! Without this, a failure in the storm could be the program's own.

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use symvirt_tests::rehearsal::mpirun;
use symvirt_tests::{apps, built, job};

const LIMIT: Duration = Duration::from_secs(60);

const PROGRAMS: [&str; 20] = [
    "any_source",
    "bulk",
    "cancelled",
    "collectives",
    "comm_churn",
    "compute_only",
    "finalize_race",
    "forks",
    "halo",
    "long_lived",
    "matched_probe",
    "preposted",
    "rendezvous",
    "sizes",
    "stall_probe",
    "strided",
    "sync_send",
    "threads",
    "unexpected",
    "window",
];

const TCP: [(&str, &str); 2] = [("UCX_TLS", "tcp,self"), ("UCX_NET_DEVICES", "lo")];
const SHM: [(&str, &str); 1] = [("UCX_TLS", "posix,self")];

/// One job at a time, also when the test runner has many threads.
static TURN: Mutex<()> = Mutex::new(());

fn all_programs_pass(ranks: u32, environment: &[(&str, &str)], with_library: bool) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for program in PROGRAMS {
        let words = mpirun(
            ranks,
            program,
            &["--rounds", "3", "--seconds", "1"],
            environment,
        );
        let mut command = if with_library {
            let release = built::release();
            let mut command = Command::new(&release.guest);
            command.env("SYMVIRT_LIB", &release.library);
            command.env("SYMVIRT_AGENT_SOCKET", "/nonexistent/agent.sock");
            command.args(["exec", "--"]).args(&words);
            command
        } else {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        };
        let outcome = job::run(&mut command, LIMIT).expect("start the launcher");
        assert!(outcome.succeeded(), "{program}: {}", outcome.describe());
        assert!(
            outcome.ok_line(program).is_some(),
            "{program}: {}",
            outcome.describe()
        );
    }
}

#[test]
fn programs_are_right_without_the_library_on_2_ranks_over_tcp() {
    all_programs_pass(2, &TCP, false);
}

#[test]
fn programs_are_right_without_the_library_on_4_ranks_over_shared_memory() {
    all_programs_pass(4, &SHM, false);
}

#[test]
fn a_job_without_an_agent_just_runs() {
    all_programs_pass(2, &SHM, true);
}

#[test]
fn plain_ucp_is_right_without_the_library() {
    for alone in ["0", "1"] {
        let mut command = Command::new(apps::program("ucp/forms"));
        command.args(["--rounds", "40", "--alone", alone]).envs(TCP);
        let outcome = job::run(&mut command, LIMIT).expect("start the program");
        assert!(outcome.succeeded(), "{}", outcome.describe());
    }
}

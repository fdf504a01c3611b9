//! `symvirt-guest rehearse` with jobs of simulated ranks. The job is this test program itself.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use symvirt_protocol::ids::ProcId;
use symvirt_protocol::rank::{FromRank, ToRank};

use crate::rank::Rank;

/// Any shared library: these jobs do not use UCX.
fn harmless_library() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("own maps");
    let library = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let mut library = library.filter(|path| path.contains("libc.so"));
    library.next().expect("a libc").into()
}

fn rehearse(options: &[&str], job: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_symvirt-guest"))
        .arg("rehearse")
        .args(options)
        .arg("--")
        .arg(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", job, "--nocapture"])
        .env("SYMVIRT_LIB", harmless_library())
        .output()
        .expect("run rehearse")
}

fn socket() -> PathBuf {
    std::env::var_os("SYMVIRT_AGENT_SOCKET")
        .expect("under rehearse")
        .into()
}

/// Four ranks in threads, for as long as `work` lets each of them.
fn ranks(work: impl Fn(&mut Rank) + Clone + Send + 'static) {
    let ranks: Vec<_> = (1..5)
        .map(|process| {
            let work = work.clone();
            thread::spawn(move || {
                let mut rank = Rank::connect(&socket(), ProcId(process));
                rank.join();
                work(&mut rank);
            })
        })
        .collect();
    for rank in ranks {
        rank.join().expect("rank");
    }
}

#[test]
#[ignore = "the job of a rehearsal, not a test"]
fn job_of_twenty_switches() {
    ranks(|rank| {
        let mut releases = 0;
        rank.serve(|message| {
            releases += usize::from(matches!(message, ToRank::Release { .. }));
            releases == 20
        });
        rank.say(&FromRank::Leave { sent: Vec::new() });
    });
}

#[test]
#[ignore = "the job of a rehearsal, not a test"]
fn job_whose_rank_2_never_drains() {
    ranks(|rank| {
        while let Some(message) = rank.hear() {
            let silent = rank.process == ProcId(2) && matches!(message, ToRank::Expect { .. });
            if let Some(answer) = rank.answer(&message).filter(|_| !silent) {
                rank.say(&answer);
            }
        }
    });
}

#[test]
#[ignore = "the job of a rehearsal, not a test"]
fn job_whose_rank_3_dies_in_commit() {
    ranks(|rank| {
        let dies = rank.process == ProcId(3);
        let limit = Instant::now() + Duration::from_secs(2);
        rank.serve(|message| {
            (dies && matches!(message, ToRank::Peers { .. })) || limit < Instant::now()
        });
        if !dies {
            rank.say(&FromRank::Leave { sent: Vec::new() });
        }
    });
}

#[test]
#[ignore = "the job of a rehearsal, not a test"]
fn job_without_ranks() {}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_job_that_survives_its_switches_passes_with_a_report() {
    let directory = tempfile::tempdir().expect("tempdir");
    let json = directory.path().join("report.json");
    let json_option = json.to_str().expect("UTF-8");
    let options = ["--every", "20ms", "--order", "both", "--json", json_option];
    let output = rehearse(&options, "rehearsal::job_of_twenty_switches");
    let report = text(&output);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("PASSED"), "{report}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("report")).expect("JSON");
    assert_eq!(report["passed"], true);
    assert!(report["switches"].as_u64() >= Some(19), "{report}");
    assert_eq!(report["orders"][0]["order"], "make-before-break");
    assert_eq!(report["orders"][0]["job_stall_us"]["median"], 100);
    assert_eq!(report["orders"][1]["job_stall_us"]["median"], 900);
}

#[test]
fn a_stuck_rank_is_named_and_the_job_is_ended() {
    let options = ["--every", "10ms", "--round-timeout", "300ms"];
    let output = rehearse(&options, "rehearsal::job_whose_rank_2_never_drains");
    let report = text(&output);
    assert!(!output.status.success(), "{report}");
    assert!(
        report.contains("stuck in drain of switch 1; missing: rank 2 (simulated, pid "),
        "{report}"
    );
    assert!(report.contains("last said Counters"), "{report}");
}

#[test]
fn a_lost_rank_fails_the_rehearsal_even_if_the_job_says_it_passed() {
    let options = ["--every", "10ms", "--round-timeout", "5s"];
    let output = rehearse(&options, "rehearsal::job_whose_rank_3_dies_in_commit");
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("lost: rank 3 (simulated, pid "), "{report}");
    assert!(report.contains("job          exit code 0"), "{report}");
}

#[test]
fn a_job_that_was_never_switched_is_not_certified() {
    let output = rehearse(&["--every", "10ms"], "rehearsal::job_without_ranks");
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("no switch happened"), "{report}");
}

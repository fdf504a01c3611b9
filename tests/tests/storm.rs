//! The storm: every program of `tests/apps` keeps its promise, byte by byte, while the transport
//! under it changes every 50 ms between tcp and shared memory, in both orders, on 2 and 4 ranks.
//!
//! ```text
//!   symvirt-guest rehearse --every 50ms --over tcp,shm --order both -- mpirun -n N app
//! ```
//!
//! What makes a run fail stands in `symvirt_tests::storm`.

use std::time::Duration;

use symvirt_tests::job::Outcome;
use symvirt_tests::rehearsal::{Rehearsal, mpirun};
use symvirt_tests::storm::{FEWEST, SECONDS, judge, rehearse, survives_as};

fn survives(program: &str, ranks: u32, arguments: &[&str], fewest: u64) {
    survives_as(program, &mpirun(ranks, program, arguments, &[]), fewest);
}

macro_rules! storm {
    ($($promise:ident: $program:literal $(, $argument:literal)*;)*) => {$(
        mod $promise {
            #[test]
            fn on_2_ranks() {
                super::survives($program, 2, &["--seconds", super::SECONDS $(, $argument)*], super::FEWEST);
            }

            #[test]
            fn on_4_ranks() {
                super::survives($program, 4, &["--seconds", super::SECONDS $(, $argument)*], super::FEWEST);
            }
        }
    )*};
}

storm! {
    posted_receives_get_the_message_of_their_tag: "preposted";
    messages_that_wait_for_their_receive_keep_order_and_content: "unexpected";
    large_messages_arrive_whole_both_ways: "rendezvous";
    a_synchronous_send_waits_for_its_receive: "sync_send";
    any_number_of_synchronous_sends_may_wait_for_their_receives: "many_syncs";
    probes_tell_the_truth: "matched_probe";
    messages_of_one_source_are_not_reordered_under_any_source: "any_source";
    derived_datatypes_arrive_element_by_element: "strided";
    a_receive_is_either_cancelled_or_complete: "cancelled";
    every_length_arrives_whole: "sizes";
    a_receive_of_the_first_epoch_completes_in_the_last: "long_lived";
    collectives_compute_what_they_should: "collectives";
    halos_are_exchanged_step_by_step: "halo";
    megabytes_in_flight_arrive_in_order: "bulk";
    threads_inside_mpi_do_not_disturb_each_other: "threads";
    communicators_come_and_go: "comm_churn";
    steady_exchange_stays_correct: "stall_probe";
    who_was_silent_for_long_is_reached_again: "seldom";
    windows_are_put_to_got_from_and_locked: "window";
    a_rank_may_fork: "forks";
    a_thread_may_change_the_environment: "environment";
}

/// On two ranks only: with more than processors, Open MPI's locks are spun for without a pause, and
/// 20 rounds of this take minutes also without the library.
#[test]
fn windows_of_every_kind_compute_what_they_should() {
    survives("windows", 2, &["--seconds", SECONDS], FEWEST);
}

#[test]
fn gets_and_puts_under_a_lock_keep_their_order() {
    survives("exclusive", 2, &["--seconds", "6"], FEWEST);
}

/// As without the library: UCX's messages would wait for the owner, which makes no call.
#[test]
fn a_window_of_the_same_machine_is_put_to_and_got_from_while_its_owner_computes() {
    // Its owner leaves no processor to whoever prepares a switch.
    let job = mpirun(2, "passive", &["--seconds", "6"], &[]);
    let rehearsal = Rehearsal::default().over("shm,shm");
    let (outcome, report) = rehearse("passive", &rehearsal, &job);
    judge("passive", &outcome, &report, FEWEST);
    // A switch makes calls in the owner's place: a round a switch would be no proof.
    let rounds = outcome.ok_line("passive").and_then(|line| {
        let (_, rest) = line.split_once("rounds=")?;
        rest.split(' ').next()?.parse::<u64>().ok()
    });
    let rounds = rounds.expect("passive says its rounds");
    assert!(
        rounds > 10 * (report.switches + report.abandoned.len() as u64),
        "{rounds} rounds: {report:?}"
    );
}

#[test]
fn remote_memory_and_atomics_are_right_in_every_form() {
    plain_ucp("ucp/remote", &["--seconds", SECONDS]);
}

/// Within shared memory as well: its queues are the ones that fill up.
#[test]
fn puts_that_wait_behind_messages_in_a_full_queue_are_flushed() {
    let program = "ucp/burst";
    for over in ["shm,shm", "tcp,shm"] {
        let rehearsal = Rehearsal::default().over(over);
        plain_ucp_in(&rehearsal, program, &["--seconds", "5"]);
    }
}

#[test]
fn memory_that_comes_and_goes_all_the_time_stands_in_no_switch_s_way() {
    // Most would be abandoned if a registration were reason enough.
    let program = "ucp/mapped";
    let rehearsal = Rehearsal::default();
    let job = plain_job(program, &["--seconds", SECONDS]);
    let (outcome, report) = rehearse(program, &rehearsal, &job);
    judge(program, &outcome, &report, 2 * FEWEST);
    assert!(
        report.abandoned.len() < 3,
        "{:?}\n{}",
        report.abandoned,
        outcome.describe()
    );
}

#[test]
fn a_key_may_outlive_the_memory_it_leads_to() {
    plain_ucp("ucp/orphan_key", &["--seconds", SECONDS]);
}

#[test]
fn a_rank_that_computes_without_mpi_holds_nobody_up() {
    // Everybody but rank 0 keeps exchanging; were rank 0 waited for, there would be no switch.
    survives("compute_only", 4, &["--seconds", "5"], FEWEST);
}

#[test]
fn rare_forms_of_ucp_calls_are_right_between_two_processes() {
    plain_ucp("ucp/forms", &["--seconds", SECONDS]);
}

#[test]
fn rare_forms_of_ucp_calls_are_right_towards_oneself() {
    plain_ucp("ucp/forms", &["--seconds", SECONDS, "--alone", "1"]);
}

#[test]
fn active_messages_arrive_once_and_in_order_between_two_processes() {
    plain_ucp("ucp/active", &["--seconds", SECONDS]);
}

#[test]
fn active_messages_arrive_once_and_in_order_towards_oneself() {
    plain_ucp("ucp/active", &["--seconds", SECONDS, "--alone", "1"]);
}

#[test]
fn a_context_for_active_messages_alone_is_switched_as_well() {
    plain_ucp("ucp/active", &["--seconds", SECONDS, "--only", "1"]);
}

#[test]
fn handlers_of_threads_that_share_a_worker_run_one_at_a_time_and_in_order() {
    plain_ucp("ucp/crowd", &["--seconds", SECONDS]);
}

#[test]
fn answers_go_over_endpoints_that_ucx_has_made_and_unheard_messages_hold_nobody_up() {
    plain_ucp("ucp/answers", &["--seconds", SECONDS]);
}

/// Between tcp and tcp: UCX 1.13 can tell of lost peers by no transport in shared memory.
#[test]
fn what_is_closed_by_force_takes_nothing_new_with_it() {
    let rehearsal = Rehearsal::default().every(Duration::from_millis(30));
    plain_ucp_in(
        &rehearsal.over("tcp,tcp"),
        "ucp/forced",
        &["--seconds", SECONDS],
    );
}

#[test]
fn a_process_may_end_before_the_one_it_talked_to() {
    let outcome = plain_ucp("ucp/outlive", &["--seconds", SECONDS]);
    assert!(
        !outcome.stderr.contains("UCX  "), // as its log lines have it, before ERROR or WARN
        "UCX complains of the one that ended: {}",
        outcome.describe()
    );
}

#[test]
fn a_process_may_exit_with_everything_alive() {
    let program = symvirt_tests::apps::program("ucp/exits");
    let script = format!(
        "for after in 0.2 0.21 0.23 0.27 0.35 0.42; do \
         timeout 30 '{}' --after $after; test $? = 7 || exit 1; done; echo OK exits status=7",
        program.display()
    );
    let job = ["sh".to_owned(), "-c".to_owned(), script];
    let rehearsal = Rehearsal::default().every(Duration::from_millis(1));
    let (outcome, report) = rehearse("ucp/exits", &rehearsal, &job);
    judge("ucp/exits", &outcome, &report, FEWEST);
}

fn plain_ucp(name: &str, arguments: &[&str]) -> Outcome {
    plain_ucp_in(&Rehearsal::default(), name, arguments)
}

fn plain_job(name: &str, arguments: &[&str]) -> Vec<String> {
    let program = symvirt_tests::apps::program(name)
        .to_string_lossy()
        .into_owned();
    let mut job = vec![program];
    job.extend(arguments.iter().map(|&argument| argument.to_owned()));
    job
}

fn plain_ucp_in(rehearsal: &Rehearsal, name: &str, arguments: &[&str]) -> Outcome {
    let job = plain_job(name, arguments);
    let (outcome, report) = rehearse(name, rehearsal, &job);
    judge(name, &outcome, &report, FEWEST);
    outcome
}

/// Jobs so short that most switches meet them in MPI_Init or MPI_Finalize. How many of these
/// switches take effect is not the point: that every job ends well is.
fn jobs_start_and_end(ranks: u32) {
    let words = mpirun(ranks, "finalize_race", &[], &[]);
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "for job in 1 2 3 4 5 6 7 8; do timeout 60 {} || exit 1; done",
        quoted.join(" ")
    );
    let job = ["sh".to_owned(), "-c".to_owned(), script];
    let rehearsal = Rehearsal::default().every(Duration::from_millis(20));
    let (outcome, report) = rehearse("finalize_race", &rehearsal, &job);
    judge("finalize_race", &outcome, &report, 1);
    let ended = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("OK "))
        .count();
    assert_eq!(ended, 8, "{}", outcome.describe());
}

#[test]
fn switches_in_init_and_finalize_of_2_ranks_end_well() {
    jobs_start_and_end(2);
}

#[test]
fn switches_in_init_and_finalize_of_4_ranks_end_well() {
    jobs_start_and_end(4);
}

/// HPC Challenge as Debian has it: HPL, PTRANS, FFT, RandomAccess, all with their own residual
/// checks. The input is Debian's example, made small.
#[test]
fn hpcc_passes_its_own_checks() {
    const EXAMPLE: &str = "/usr/share/doc/hpcc/examples/_hpccinf.txt";
    let example = std::fs::read_to_string(EXAMPLE)
        .unwrap_or_else(|error| panic!("read {EXAMPLE} (Debian package hpcc): {error}"));
    let folder = std::env::temp_dir().join(format!("symvirt-hpcc-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make a folder for hpcc");
    let input = example.replace("\n1000         Ns", "\n500          Ns");
    std::fs::write(folder.join("hpccinf.txt"), input).expect("write hpcc's input");
    let place = folder.to_string_lossy().into_owned();
    let job = [
        "mpirun.openmpi",
        "--allow-run-as-root",
        "--oversubscribe",
        "--wdir",
        &place,
    ]
    .into_iter()
    .chain(["-x", "OPENBLAS_NUM_THREADS=1", "-n", "4", "hpcc"])
    .map(str::to_owned)
    .collect::<Vec<_>>();
    let (outcome, report) = rehearse("hpcc", &Rehearsal::default(), &job);
    let said = std::fs::read_to_string(folder.join("hpccoutf.txt")).unwrap_or_default();
    std::fs::remove_dir_all(&folder).expect("remove hpcc's folder");
    assert!(outcome.succeeded(), "{}", outcome.describe());
    assert!(
        report.failed.is_empty() && report.switches >= FEWEST,
        "{report:?}"
    );
    assert!(
        said.contains("End of HPC Challenge tests"),
        "hpcc did not end:\n{said}"
    );
    assert!(said.contains("Success=1"), "hpcc says no success:\n{said}");
    let failed = said.lines().find(|line| {
        line.contains("tests completed and failed") && !line.trim_start().starts_with('0')
    });
    assert_eq!(failed, None);
    assert!(
        !said.contains(" FAILED"),
        "a residual check failed:\n{said}"
    );
}

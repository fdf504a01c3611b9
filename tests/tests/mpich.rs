//! The storm over MPICH 4.0 (ch4:ucx), which sends tagged and active messages, puts and gets, started
//! by Hydra. Programs and promises are those of `storm.rs`; a smaller choice of them, because what
//! they have in common is tested there.

use std::process::Command;
use std::time::Duration;

use symvirt_tests::job;
use symvirt_tests::mpi::Mpi;
use symvirt_tests::storm::{FEWEST, SECONDS, alone, survives_as};

fn survives(program: &str, ranks: u32) {
    let job = Mpi::Mpich40.job(ranks, program, &["--seconds", SECONDS], &[]);
    survives_as(program, &job.words, FEWEST);
}

macro_rules! storm {
    ($($promise:ident: $program:literal;)*) => {$(
        mod $promise {
            #[test]
            fn on_2_ranks() {
                super::survives($program, 2);
            }

            #[test]
            fn on_4_ranks() {
                super::survives($program, 4);
            }
        }
    )*};
}

storm! {
    messages_that_wait_for_their_receive_keep_order_and_content: "unexpected";
    large_messages_arrive_whole_both_ways: "rendezvous";
    a_synchronous_send_waits_for_its_receive: "sync_send";
    any_number_of_synchronous_sends_may_wait_for_their_receives: "many_syncs";
    probes_tell_the_truth: "matched_probe";
    derived_datatypes_arrive_element_by_element: "strided";
    a_receive_is_either_cancelled_or_complete: "cancelled";
    collectives_compute_what_they_should: "collectives";
    halos_are_exchanged_step_by_step: "halo";
    threads_inside_mpi_do_not_disturb_each_other: "threads";
    communicators_come_and_go: "comm_churn";
    windows_are_put_to_got_from_and_locked: "window";
    gets_and_puts_under_a_lock_keep_their_order: "exclusive";
    windows_of_every_kind_compute_what_they_should: "windows";
}

/// Without this, a failure above could be MPICH's own.
#[test]
fn programs_are_right_by_themselves() {
    let _turn = alone();
    // Rounds, not seconds: a busy machine may take longer to make a window than a short time.
    for program in ["halo", "unexpected", "window", "windows"] {
        let words = Mpi::Mpich40.job(2, program, &["--rounds", "3"], &[]).words;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let outcome = job::run(&mut command, Duration::from_secs(60)).expect("start the launcher");
        assert!(
            outcome.succeeded() && outcome.ok_line(program).is_some(),
            "{program}: {}",
            outcome.describe()
        );
    }
}

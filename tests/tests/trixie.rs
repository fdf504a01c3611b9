//! The storm over the MPIs of Debian trixie, Open MPI 5.0 and MPICH 4.2, in a directory that is
//! made for it. Programs and promises are those of `storm.rs`; a choice of them, because what all
//! MPIs have in common is tested there.

use symvirt_tests::mpi::Mpi;
use symvirt_tests::setting::Setting;
use symvirt_tests::storm::survives;

macro_rules! storm {
    ($($promise:ident: $program:literal on $($ranks:literal)*;)*) => {
        mod open_mpi_5_0 {
            use super::*;
            $(#[test]
            fn $promise() {
                $(survives(Mpi::OpenMpi5, $program, $ranks, &Setting::USUAL);)*
            })*
        }

        mod mpich_4_2 {
            use super::*;
            $(#[test]
            fn $promise() {
                $(survives(Mpi::Mpich42, $program, $ranks, &Setting::USUAL);)*
            })*
        }
    };
}

storm! {
    messages_that_wait_for_their_receive_keep_order_and_content: "unexpected" on 2 4;
    large_messages_arrive_whole_both_ways: "rendezvous" on 2;
    a_synchronous_send_waits_for_its_receive: "sync_send" on 2;
    probes_tell_the_truth: "matched_probe" on 2;
    a_receive_is_either_cancelled_or_complete: "cancelled" on 2;
    collectives_compute_what_they_should: "collectives" on 4;
    threads_inside_mpi_do_not_disturb_each_other: "threads" on 2;
    communicators_come_and_go: "comm_churn" on 2;
    windows_are_put_to_got_from_and_locked: "window" on 2 4;
    windows_of_every_kind_compute_what_they_should: "windows" on 2;
}

/// MPICH 4.2 of Debian refuses MPI_Comm_spawn.
#[test]
fn ranks_that_a_job_of_open_mpi_5_0_starts_join_its_switches_and_part() {
    survives(Mpi::OpenMpi5, "spawn", 1, &Setting::USUAL);
}

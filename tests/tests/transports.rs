//! tcp ↔ shared memory ↔ cma at random intervals, with both versions of UCX's protocols and with
//! rendezvous always, from 2000 bytes on, and never: a slice, that `cargo xtask soak` completes.

use symvirt_tests::mpi::Mpi;
use symvirt_tests::setting::Setting;
use symvirt_tests::storm::survives;

/// Takes each program through all settings, by turns with the others: every setting is met by some
/// program, and every program by some settings of both versions.
fn every_third(mpi: Mpi, programs: [&str; 3]) {
    for (number, setting) in Setting::PROTOCOLS.iter().enumerate() {
        let program = programs[(number + number / 3) % programs.len()];
        println!("{mpi}: {program}, {}", setting.name);
        survives(mpi, program, 2, setting);
    }
}

#[test]
fn open_mpi_4_1_is_right_under_every_protocol() {
    every_third(Mpi::OpenMpi4, ["unexpected", "rendezvous", "window"]);
}

#[test]
fn open_mpi_5_0_is_right_under_every_protocol() {
    every_third(Mpi::OpenMpi5, ["sync_send", "sizes", "windows"]);
}

#[test]
fn mpich_4_0_is_right_under_every_protocol() {
    every_third(Mpi::Mpich40, ["sizes", "windows", "matched_probe"]);
}

#[test]
fn mpich_4_2_is_right_under_every_protocol() {
    every_third(Mpi::Mpich42, ["strided", "rendezvous", "windows"]);
}

//! mpi4py with the MPIs of PyPI, which bring their own UCX: objects by pickle, collectives, windows,
//! and the C programs that were compiled by the wheel's own compiler.

use symvirt_tests::mpi::Mpi;
use symvirt_tests::setting::Setting;
use symvirt_tests::storm::{SECONDS, judge, rehearse, survives};

fn objects_survive(mpi: Mpi) {
    let job = mpi.python(2, "objects", &["--seconds", SECONDS], &[]);
    let setting = Setting::USUAL;
    let (outcome, report) = rehearse("objects", &setting.rehearsal(mpi), &job.words);
    judge("objects", &outcome, &report, setting.fewest());
}

#[test]
fn objects_and_windows_of_mpi4py_are_right_with_the_wheel_of_open_mpi() {
    objects_survive(Mpi::OpenMpiWheel);
}

#[test]
fn objects_and_windows_of_mpi4py_are_right_with_the_wheel_of_mpich() {
    objects_survive(Mpi::MpichWheel);
}

#[test]
fn a_program_of_the_wheels_compiler_is_right_with_open_mpi() {
    survives(Mpi::OpenMpiWheel, "rendezvous", 2, &Setting::USUAL);
}

#[test]
fn a_program_of_the_wheels_compiler_is_right_with_mpich() {
    survives(Mpi::MpichWheel, "window", 2, &Setting::USUAL);
}

/// Debian's MPICHs refuse MPI_Comm_spawn.
#[test]
fn ranks_that_a_job_of_mpich_starts_join_its_switches_and_part() {
    survives(Mpi::MpichWheel, "spawn", 2, &Setting::USUAL);
}

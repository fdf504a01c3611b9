//! Programs of Debian compute the same with and without switches; `hpcc`, which checks its own
//! results, is in `storm.rs`.

use symvirt_tests::debian::Program;
use symvirt_tests::rehearsal::Rehearsal;
use symvirt_tests::storm::{FEWEST, alone};

fn computes_the_same(program: Program) {
    let _turn = alone();
    let compared = program
        .compare(&Rehearsal::default(), &[])
        .unwrap_or_else(|error| panic!("{error:#}"));
    println!("{}: {} switches", program.name(), compared.report.switches);
    if let Err(why) = compared.verdict(FEWEST) {
        panic!("{}: {why}", program.name());
    }
}

#[test]
fn lammps_prints_the_same_thermodynamics() {
    computes_the_same(Program::Lammps);
}

#[test]
fn quantum_espresso_prints_the_same_energies_and_forces() {
    computes_the_same(Program::QuantumEspresso);
}

#[test]
fn a_python_program_receives_the_same_objects() {
    computes_the_same(Program::Mpi4py);
}

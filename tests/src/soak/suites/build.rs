//! The suite's programs, compiled by an MPI: configured once, each program made when it is first
//! run.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::source;
use super::testlist::{self, Test};
use crate::kept::{self, KeptError};
use crate::mpi::Mpi;

/// Folders of the suite's C programs. Not those whose programs take hours or want more than MPI.
const FOLDERS: [&str; 22] = [
    "attr",
    "coll",
    "comm",
    "datatype",
    "errhan",
    "group",
    "info",
    "init",
    "io",
    "mpi_t",
    "part",
    "pt2pt",
    "rma",
    "spawn",
    "topo",
    "threads/coll",
    "threads/comm",
    "threads/init",
    "threads/part",
    "threads/pt2pt",
    "threads/rma",
    "threads/spawn",
];

/// Folders of the other languages.
const LANGUAGES: [&str; 4] = ["cxx", "f77", "f90", "f08"];
/// What is below each of them, as far as it is.
const OF_LANGUAGE: [&str; 14] = [
    "attr", "coll", "comm", "datatype", "errhan", "ext", "f90types", "info", "init", "io", "pt2pt",
    "rma", "spawn", "topo",
];

/// All of them.
fn folders() -> impl Iterator<Item = String> {
    let below = |language: &'static str| {
        OF_LANGUAGE
            .into_iter()
            .map(move |folder| format!("{language}/{folder}"))
    };
    let c = FOLDERS.into_iter().map(str::to_owned);
    c.chain(LANGUAGES.into_iter().flat_map(below))
}

/// The suite, as an MPI compiles it.
#[derive(Debug)]
pub struct Built {
    mpi: Mpi,
    folder: PathBuf,
}

impl Built {
    /// Configures it, if that was not done before.
    ///
    /// # Errors
    /// When it cannot be configured.
    pub fn by(mpi: Mpi) -> Result<Built, KeptError> {
        let source = source::folder()?;
        let key = source.to_string_lossy();
        let folder = kept::ensure(
            "suites",
            &["build in all languages", &key, mpi.key()],
            |target| configure(mpi, &source, target),
        )?;
        Ok(Built { mpi, folder })
    }

    /// All that is to be run.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn tests(&self) -> Result<Vec<Test>, KeptError> {
        let source = source::folder()?;
        let mut tests = Vec::new();
        for folder in folders() {
            // Made by `configure`, or part of the source; the second is of tests with all kinds of
            // datatypes.
            for list in ["testlist", "testlist.dtp"] {
                let places = [&self.folder, &source].map(|at| at.join(&folder).join(list));
                if let Some(list) = places.iter().find(|list| list.exists()) {
                    let text = std::fs::read_to_string(list).map_err(kept::file("read", list))?;
                    tests.extend(testlist::parse(&folder, &text, self.mpi.is_open_mpi()));
                }
            }
        }
        Ok(tests)
    }

    /// Where a test runs, and its program, which is made if it is not there.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn program(&self, test: &Test) -> Result<(PathBuf, PathBuf), KeptError> {
        // A list may name a program of a folder below its own.
        let program = self.folder.join(&test.folder).join(&test.program);
        let folder = program.parent().unwrap_or(&self.folder).to_owned();
        if !program.exists() {
            let name = program.file_name().unwrap_or_default();
            let mut make = self.mpi.place().command("make");
            kept::run(make.args(["--silent", "-C"]).arg(&folder).arg(name))?;
        }
        Ok((folder, program))
    }
}

/// In C, and with Debian's own MPIs in C++ and Fortran, too.
fn configure(mpi: Mpi, source: &Path, target: &Path) -> Result<(), KeptError> {
    println!("configuring MPICH's tests for {mpi}");
    std::fs::create_dir_all(target).map_err(kept::file("make", target))?;
    let (compiler, options) = mpi.compiler();
    let mut command: Command = mpi.place().command("env");
    command
        .arg("-C")
        .arg(target)
        .arg(source.join("configure"))
        .arg(format!("CC={compiler}"))
        .arg(format!("MPICC={compiler}"))
        .arg(format!("LDFLAGS={}", options.join(" ")))
        // Newer standards make errors of what the suite's older programs do.
        .arg("CFLAGS=-std=gnu99 -O1 -g -w")
        .arg("MPI_SIZEOF_AINT=8");
    match mpi.other_compilers() {
        Some(compilers) => {
            for (names, compiler) in [
                (["CXX", "MPICXX"], &compilers.cxx),
                (["F77", "MPIF77"], &compilers.fortran),
                (["FC", "MPIFC"], &compilers.fortran),
            ] {
                command.args(names.map(|name| format!("{name}={compiler}")));
            }
            command.arg("CXXFLAGS=-O1 -w");
            // Its older programs hand over buffers of several types.
            let lenient = "-O1 -w -fallow-argument-mismatch";
            command.args(["FFLAGS", "FCFLAGS"].map(|name| format!("{name}={lenient}")));
        }
        None => {
            command.args(["--disable-fortran", "--disable-cxx"]);
        }
    }
    if mpi.is_open_mpi() {
        command.arg("--enable-strictmpi");
    }
    kept::run(&mut command)
}

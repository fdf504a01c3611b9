//! The C programs of `tests/apps`, compiled by each MPI; those of its `ucp` folder use UCX without
//! MPI. A program is compiled again when a source or header is newer than it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::built;
use crate::mpi::Mpi;
use crate::place::Place;

/// Why there is no program to run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A folder could not be read or made.
    #[error("look for programs in {}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The compiler could not be started.
    #[error("start {compiler}; `cargo xtask setup` installs it")]
    Compiler {
        /// Its name.
        compiler: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program does not compile.
    #[error("compile {}:\n{stderr}", program.display())]
    Compile {
        /// Source file.
        program: PathBuf,
        /// What the compiler says.
        stderr: String,
    },
}

/// How a family of programs is compiled.
struct Family {
    /// Of the sources, below `tests/apps`.
    folder: &'static str,
    compiler: String,
    options: Vec<String>,
    place: Place,
}

impl Family {
    /// The family of an MPI's name, or of UCX without MPI.
    fn of(name: &str) -> Family {
        if name == "ucp" {
            return Family {
                folder: "ucp",
                compiler: "cc".to_owned(),
                options: ["-lucp", "-lucs"].map(str::to_owned).to_vec(),
                place: Place::Machine,
            };
        }
        let mpi = Mpi::ALL.into_iter().find(|mpi| mpi.key() == name);
        let mpi = mpi.unwrap_or_else(|| panic!("no programs are called {name}"));
        let (compiler, mut options) = mpi.compiler();
        options.extend(["-pthread", "-Wl,--as-needed", "-libverbs"].map(str::to_owned));
        Family {
            folder: "",
            compiler,
            options,
            place: mpi.place(),
        }
    }
}

/// The compiled program of this name, for example `openmpi/halo`, `mpich42/halo` or `ucp/forms`. The
/// first call compiles all of the family.
///
/// # Panics
/// When they do not compile: there is nothing to test then.
pub fn program(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let family = name.split_once('/').map_or("", |(family, _)| family);
    let apps = built::target_dir().join("apps");
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.insert(family.to_owned()) {
        build(&Family::of(family), &apps.join(family)).unwrap_or_else(|error| {
            built.remove(family);
            panic!("{error}")
        });
    }
    apps.join(name)
}

/// Folder of the C sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps")
}

/// Folder of `symvirt.h` and `symvirt.f90`.
pub fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ffi/include")
}

/// Compiles what is missing or out of date into `target`.
fn build(family: &Family, target: &Path) -> Result<(), AppError> {
    let headers = newest(&sources(), "h")?
        .max(newest(&sources().join("ucp"), "h")?)
        .max(newest(&include(), "h")?);
    std::fs::create_dir_all(target).map_err(|source| AppError::Folder {
        folder: target.to_owned(),
        source,
    })?;
    for source in files(&sources().join(family.folder), "c")? {
        let program = target.join(source.file_stem().unwrap_or_default());
        if modified(&program) <= modified(&source).max(headers) {
            compile(family, &source, &program)?;
        }
    }
    Ok(())
}

fn compile(family: &Family, source: &Path, program: &Path) -> Result<(), AppError> {
    // Under another name first: two test programs may compile at the same time.
    let mut unfinished = OsString::from(program);
    unfinished.push(format!(".{}", std::process::id()));
    let output = family
        .place
        .command(&family.compiler)
        .args(["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra"])
        .args(["-Wno-deprecated-declarations", "-o"])
        .arg(&unfinished)
        .arg("-I")
        .arg(include())
        .arg(source)
        .args(&family.options)
        .output()
        .map_err(|error| AppError::Compiler {
            compiler: family.compiler.clone(),
            source: error,
        })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(AppError::Compile {
            program: source.to_owned(),
            stderr,
        });
    }
    std::fs::rename(&unfinished, program).map_err(|source| AppError::Folder {
        folder: program.to_owned(),
        source,
    })
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, AppError> {
    let failed = |source| AppError::Folder {
        folder: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some(OsStr::new(extension)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn newest(folder: &Path, extension: &str) -> Result<SystemTime, AppError> {
    let times = files(folder, extension)?
        .into_iter()
        .map(|file| modified(&file));
    Ok(times.max().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// A missing file is older than all others.
fn modified(path: &Path) -> SystemTime {
    path.metadata()
        .and_then(|data| data.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

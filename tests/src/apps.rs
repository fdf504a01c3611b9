//! The C programs of `tests/apps`, compiled by each MPI of this machine; those of its `ucp` folder
//! use UCX without MPI. A program is compiled again when a source or header is newer than it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::built;

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
    #[error("start {compiler}; it comes with {package}")]
    Compiler {
        /// Its name.
        compiler: &'static str,
        /// The Debian package that has it.
        package: &'static str,
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
    /// Of the programs: the prefix of their names.
    target: &'static str,
    compiler: &'static str,
    package: &'static str,
    libraries: &'static [&'static str],
}

const FAMILIES: [Family; 3] = [
    Family {
        folder: "",
        target: "",
        compiler: "mpicc.openmpi",
        package: "libopenmpi-dev",
        libraries: &["-pthread", "-Wl,--as-needed", "-libverbs"],
    },
    Family {
        folder: "",
        target: "mpich",
        compiler: "mpicc.mpich",
        package: "libmpich-dev",
        libraries: &["-pthread", "-Wl,--as-needed", "-libverbs"],
    },
    Family {
        folder: "ucp",
        target: "ucp",
        compiler: "cc",
        package: "libucx-dev",
        libraries: &["-lucp", "-lucs"],
    },
];

/// The compiled program of this name, for example `halo`, `mpich/halo` or `ucp/forms`. The first
/// call compiles all of them.
///
/// # Panics
/// When they do not compile: there is nothing to test then.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let target = built::target_dir().join("apps");
        build_all(&target).unwrap_or_else(|error| panic!("{error}"));
        target
    });
    folder.join(name)
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
///
/// # Errors
/// The first program that does not compile; those before it are there.
pub fn build_all(target: &Path) -> Result<(), AppError> {
    let headers = newest(&sources(), "h")?
        .max(newest(&sources().join("ucp"), "h")?)
        .max(newest(&include(), "h")?);
    for family in &FAMILIES {
        let into = target.join(family.target);
        std::fs::create_dir_all(&into).map_err(|source| AppError::Folder {
            folder: into.clone(),
            source,
        })?;
        for source in files(&sources().join(family.folder), "c")? {
            let program = into.join(source.file_stem().unwrap_or_default());
            if modified(&program) <= modified(&source).max(headers) {
                compile(family, &source, &program)?;
            }
        }
    }
    Ok(())
}

fn compile(family: &Family, source: &Path, program: &Path) -> Result<(), AppError> {
    // Under another name first: two test programs may compile at the same time.
    let mut unfinished = OsString::from(program);
    unfinished.push(format!(".{}", std::process::id()));
    let output = Command::new(family.compiler)
        .args([
            "-std=gnu11",
            "-O2",
            "-g",
            "-Wall",
            "-Wextra",
            "-Wno-deprecated-declarations",
            "-o",
        ])
        .arg(&unfinished)
        .arg("-I")
        .arg(include())
        .arg(source)
        .args(family.libraries)
        .output()
        .map_err(|error| AppError::Compiler {
            compiler: family.compiler,
            package: family.package,
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

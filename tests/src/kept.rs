//! What is costly to make and kept between runs: a Debian in a directory, Python environments.
//!
//! ```text
//!  .lab/                 SYMVIRT_LAB_DIR, else in the root of the repository; git-ignored
//!  ├── roots/<key>       made by debootstrap; key = hash of the recipe
//!  ├── suites/<key>      sources of public suites, and what an MPI made of them
//!  └── wheels/<key>      made by pip
//! ```
//!
//! Beside each lies `<key>.complete`, written last: what was begun and not ended is made anew.
//! Everything can be deleted at any time that no test runs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// A file or directory.
    #[error("{what} {}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program of the recipe could not be started.
    #[error("start {program}; `cargo xtask setup` installs it")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program of the recipe failed.
    #[error("{program}: {status}\n{said}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said last.
        said: String,
    },
    /// There is no source for it.
    #[error("{0}")]
    Unfit(&'static str),
}

/// What an operation on a file failed with.
pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeptError {
    let path = path.to_owned();
    move |source| KeptError::File { what, path, source }
}

/// The directory of a part, which is made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn part(name: &str) -> Result<PathBuf, KeptError> {
    let lab = std::env::var_os("SYMVIRT_LAB_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.lab"),
        PathBuf::from,
    );
    let part = lab.join(name);
    std::fs::create_dir_all(&part).map_err(file("make", &part))?;
    part.canonicalize().map_err(file("resolve", &part))
}

/// The directory `part/<hash of the recipe>`; `make` makes it if it is not there. Another process
/// that wants the same waits.
///
/// # Errors
/// [`KeptError`]; what was begun is removed by the next call.
pub fn ensure(
    part: &str,
    recipe: &[&str],
    make: impl FnOnce(&Path) -> Result<(), KeptError>,
) -> Result<PathBuf, KeptError> {
    let part = self::part(part)?;
    let lock = part.join("lock");
    let lock_file = std::fs::File::create(&lock).map_err(file("make", &lock))?;
    let _lock = Flock::lock(lock_file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| file("lock", &lock)(errno.into()))?;
    let mut key = DefaultHasher::new();
    recipe.hash(&mut key);
    let key = format!("{:016x}", key.finish());
    let directory = part.join(&key);
    let complete = part.join(format!("{key}.complete"));
    if !complete.exists() {
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(file("remove", &directory))?;
        }
        make(&directory)?;
        std::fs::write(&complete, recipe.join("\n")).map_err(file("write", &complete))?;
    }
    Ok(directory)
}

/// Runs a program of a recipe.
///
/// # Errors
/// When it does not succeed.
pub fn run(command: &mut Command) -> Result<(), KeptError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(source) => return Err(KeptError::Start { program, source }),
    };
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    let last: Vec<&str> = said.lines().rev().take(20).collect();
    Err(KeptError::Failed {
        program,
        status: output.status,
        said: last.into_iter().rev().collect::<Vec<_>>().join("\n"),
    })
}

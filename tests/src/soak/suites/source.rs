//! MPICH's own tests, from Debian's source package: fetched once and kept.
//!
//! Nothing of this machine's apt is changed: the source is listed in a directory of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kept::{self, KeptError};
use crate::mirror;

const SUITE: &str = "bookworm";
const PACKAGE: &str = "mpich";
/// Below what the package unpacks.
const TESTS: &str = "test/mpi";
/// What MPI 3 removed is declared as an error by Open MPI; what took its place does the same.
const RENAMED: [(&str, &str); 3] = [
    ("MPI_Type_hvector(", "MPI_Type_create_hvector("),
    ("MPI_Type_hindexed(", "MPI_Type_create_hindexed("),
    ("MPI_Type_struct(", "MPI_Type_create_struct("),
];

/// The folder of the tests.
///
/// # Errors
/// When they cannot be fetched.
pub fn folder() -> Result<PathBuf, KeptError> {
    kept::ensure("suites", &["source", SUITE, PACKAGE], fetch)
}

fn fetch(target: &Path) -> Result<(), KeptError> {
    println!("fetching the source of {PACKAGE}");
    let mirror = mirror::of_suite(SUITE).ok_or(KeptError::Unfit("no Debian mirror in /etc/apt"))?;
    let apt = target.join("apt");
    for part in ["sources", "lists/partial", "cache/archives/partial"] {
        let path = apt.join(part);
        std::fs::create_dir_all(&path).map_err(kept::file("make", &path))?;
    }
    let listed = apt.join("sources/suite.list");
    std::fs::write(&listed, format!("deb-src {mirror} {SUITE} main\n"))
        .map_err(kept::file("write", &listed))?;
    kept::run(apt_get(&apt).arg("update"))?;
    kept::run(apt_get(&apt).args(["--download-only", "source", PACKAGE]))?;
    let archive = archive(&apt)?;
    kept::run(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(target)
            .args(["--strip-components=3", "--wildcards"])
            .arg(format!("*/{TESTS}")),
    )?;
    let types = target.join("dtpools/src/dtpools_custom.c");
    let text = std::fs::read_to_string(&types).map_err(kept::file("read", &types))?;
    let text = RENAMED
        .iter()
        .fold(text, |text, (old, new)| text.replace(old, new));
    std::fs::write(&types, text).map_err(kept::file("write", &types))?;
    std::fs::remove_dir_all(&apt).map_err(kept::file("remove", &apt))
}

fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.current_dir(apt);
    let options = [
        ("Dir::Etc::sourcelist", "/dev/null".into()),
        ("Dir::Etc::sourceparts", apt.join("sources")),
        ("Dir::State::lists", apt.join("lists")),
        ("Dir::State::status", "/dev/null".into()),
        ("Dir::Cache", apt.join("cache")),
    ];
    for (name, value) in options {
        command.arg("-o").arg(format!("{name}={}", value.display()));
    }
    if nix::unistd::geteuid().is_root() {
        // The directory need not be one that apt's own user may write to.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command
}

/// What was downloaded.
fn archive(apt: &Path) -> Result<PathBuf, KeptError> {
    let entries = std::fs::read_dir(apt).map_err(kept::file("read", apt))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.to_string_lossy().contains(".orig.tar."));
    found.ok_or(KeptError::Unfit("apt downloaded no source of MPICH"))
}

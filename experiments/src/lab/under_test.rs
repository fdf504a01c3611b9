//! What is under test in the guests, and the disk that brings it there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LabError;
use crate::image::Payload;
use crate::job::Mpi;
use crate::lab_dir::LabDir;

/// Where the programs of the project are: beside this one.
///
/// # Errors
/// [`LabError::File`].
pub fn programs() -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map_err(|source| LabError::File {
        what: "find",
        path: "/proc/self/exe".into(),
        source,
    })?;
    let mut directory = own.parent().unwrap_or(Path::new("/")).to_owned();
    // Test programs are one level deeper.
    if directory.ends_with("deps") {
        directory.pop();
    }
    Ok(directory)
}

/// What is under test in the guests: the library, the guest's program, the MPI test programs.
///
/// # Errors
/// [`LabError`] if a test program does not compile.
pub fn payload(programs: &Path, apps: &[(Mpi, PathBuf)]) -> Result<Payload, LabError> {
    let mut payload = Payload::default()
        .with("bin/symvirt-guest", programs.join("symvirt-guest"))
        .with("lib/libsymvirt.so", programs.join("libsymvirt.so"));
    for (mpi, directory) in apps {
        let listed = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut built: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
        built.sort();
        for app in built {
            let name = app.file_name().unwrap_or_default().to_string_lossy();
            payload = payload.with(mpi.app(&name), app);
        }
    }
    Ok(payload)
}

/// The second disk. It is kept in the lab's directory, not in that of the run: QEMU opens disks
/// past the page cache, which the memory file system of `/run` may not allow.
pub(super) fn payload_disk(directory: &LabDir, payload: &Payload) -> Result<PathBuf, LabError> {
    const OLD: Duration = Duration::from_secs(24 * 3600);
    let disks = directory.part("payload")?;
    for entry in std::fs::read_dir(&disks).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|data| data.modified());
        if age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > OLD)) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    let disk = disks.join(format!("{}.raw", payload.key()?));
    if !disk.exists() {
        let _lock = directory.lock()?;
        payload.make(&disk)?;
    }
    Ok(disk)
}

//! Where the test bed keeps what is costly to make: the guest image and the templates.
//!
//! ```text
//!  .lab/                  SYMVIRT_LAB_DIR, else in the root of the repository; git-ignored
//!  ├── images/<key>/      kernel, initrd, base image, ssh key; key = hash of the recipe
//!  ├── templates/<key>    memory of a booted guest; key = image + payload + VM
//!  ├── out/               what demo and benchmarks write
//!  └── logs/<run>/        logs of a run that failed
//! ```
//!
//! Everything in it can be deleted at any time that no test bed is up. Under `sudo` these folders are
//! made for who asked for it: tests that need no root, and benchmarks, write there, too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LabDirError {
    /// A directory or file of it cannot be made.
    #[error("make {path}")]
    Make {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Waiting for another run that builds failed.
    #[error("lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The directory.
#[derive(Clone, Debug)]
pub struct LabDir(PathBuf);

impl LabDir {
    /// The one that `SYMVIRT_LAB_DIR` names, else `.lab` in the root of the repository.
    ///
    /// # Errors
    /// [`LabDirError::Make`].
    pub fn open() -> Result<Self, LabDirError> {
        let root = std::env::var_os("SYMVIRT_LAB_DIR")
            .map_or_else(|| repository().join(".lab"), PathBuf::from);
        let root = std::path::absolute(&root).unwrap_or(root);
        make(&root)?;
        let lab = Self(root);
        for part in ["images", "templates", "out", "logs"] {
            lab.part(part)?;
        }
        Ok(lab)
    }

    /// A directory in it, made if missing.
    ///
    /// # Errors
    /// [`LabDirError::Make`].
    pub fn part(&self, name: &str) -> Result<PathBuf, LabDirError> {
        let path = self.0.join(name);
        make(&path)?;
        Ok(path)
    }

    /// Waits until no other run builds, and keeps others waiting until it is dropped.
    ///
    /// # Errors
    /// [`LabDirError`].
    pub fn lock(&self) -> Result<Flock<std::fs::File>, LabDirError> {
        let path = self.0.join("lock");
        let file = std::fs::File::create(&path).map_err(|source| LabDirError::Make {
            path: path.clone(),
            source,
        })?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| LabDirError::Lock {
            path,
            source: errno.into(),
        })
    }
}

/// A folder, of the user who asks; nothing is done if it is there.
fn make(path: &Path) -> Result<(), LabDirError> {
    let failed = |source| LabDirError::Make {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    let id = |name| std::env::var(name).ok()?.parse().ok();
    std::os::unix::fs::chown(path, id("SUDO_UID"), id("SUDO_GID")).map_err(failed)
}

/// Root of the repository this program was built from.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: the package is a folder of the repository")
}

/// A short name for everything that was put in; equal names mean equal content.
#[derive(Default)]
pub struct Fingerprint(DefaultHasher);

impl Fingerprint {
    /// Adds bytes, delimited from those before.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        part.as_ref().hash(&mut self.0);
        self
    }

    /// The name.
    pub fn name(&self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_where_parts_end() {
        let one = Fingerprint::default().with("ab").with("c").name();
        let other = Fingerprint::default().with("a").with("bc").name();
        assert_ne!(one, other);
    }
}

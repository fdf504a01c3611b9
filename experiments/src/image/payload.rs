//! The second disk: what is under test, mounted by every guest at `/opt/symvirt`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{ImageError, file, rootfs};
use crate::lab_dir::Fingerprint;

/// Room beyond the files, for the file system itself.
const SLACK_MIB: u64 = 8;

/// Files for the second disk.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    files: Vec<(String, PathBuf)>,
}

impl Payload {
    /// Adds `source` as `/opt/symvirt/<target>`, executable.
    #[must_use]
    pub fn with(mut self, target: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        self.files.push((target.into(), source.into()));
        self
    }

    /// A name for its content.
    ///
    /// # Errors
    /// [`ImageError::File`] if a file cannot be read.
    pub fn key(&self) -> Result<String, ImageError> {
        let mut print = Fingerprint::default();
        for (target, source) in &self.files {
            let content = std::fs::read(source).map_err(file("read", source))?;
            print = print.with(target).with(content);
        }
        Ok(print.name())
    }

    /// Writes the disk image.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn make(&self, image: &Path) -> Result<(), ImageError> {
        let tree = image.with_extension("tree");
        std::fs::create_dir_all(&tree).map_err(file("make", &tree))?;
        let mut bytes = 0;
        for (target, source) in &self.files {
            let path = tree.join(target);
            let directory = path.parent().unwrap_or(&tree);
            std::fs::create_dir_all(directory).map_err(file("make", directory))?;
            bytes += std::fs::copy(source, &path).map_err(file("copy", source))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                .map_err(file("chmod", &path))?;
        }
        let mebibytes = bytes.div_ceil(1 << 20) + SLACK_MIB;
        rootfs::ext4(&tree, image, "symvirt-opt", mebibytes)?;
        std::fs::remove_dir_all(&tree).map_err(file("remove", &tree))
    }
}

//! The guest's page cache, dropped before the guest is copied.
//!
//! What a kernel keeps of files that it can read again need not go over the link. It pays only if
//! the hypervisor learns which memory is free: by the balloon's free page hints. Dirty pages, and
//! what is mapped, stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Clean page cache, without dentries and inodes; `Documentation/admin-guide/sysctl/vm.rst` of
/// Linux.
const PAGES: &str = "1";

pub struct PageCache {
    root: PathBuf,
}

impl PageCache {
    /// Of the system whose `/sys` and `/proc` are below `root`.
    pub fn below(root: &Path) -> PageCache {
        PageCache {
            root: root.to_owned(),
        }
    }

    /// Drops it, if there is a balloon; by how many bytes it has shrunk.
    pub fn drop(&self) -> io::Result<u64> {
        if !self.has_balloon() {
            return Ok(0);
        }
        let before = self.size()?;
        fs::write(self.root.join("proc/sys/vm/drop_caches"), PAGES)?;
        Ok(before.saturating_sub(self.size()?))
    }

    fn has_balloon(&self) -> bool {
        let driver = self.root.join("sys/bus/virtio/drivers/virtio_balloon");
        let devices = fs::read_dir(driver).into_iter().flatten().flatten();
        devices
            .map(|entry| entry.file_name())
            .any(|name| name.as_encoded_bytes().starts_with(b"virtio"))
    }

    /// Of files and block devices, in bytes.
    fn size(&self) -> io::Result<u64> {
        let meminfo = fs::read_to_string(self.root.join("proc/meminfo"))?;
        let kib = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.trim_end_matches("kB").trim().parse().ok());
            number.unwrap_or(0u64)
        };
        Ok((kib("Buffers:") + kib("Cached:")) << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(balloon: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let driver = root.path().join("sys/bus/virtio/drivers/virtio_balloon");
        fs::create_dir_all(driver.join("module")).unwrap();
        if balloon {
            fs::create_dir(driver.join("virtio3")).unwrap();
        }
        fs::create_dir_all(root.path().join("proc/sys/vm")).unwrap();
        let meminfo = "MemTotal:  8000000 kB\nBuffers:   1000 kB\nCached:    24 kB\n\
            SwapCached:  7 kB\n";
        fs::write(root.path().join("proc/meminfo"), meminfo).unwrap();
        root
    }

    fn asked(root: &tempfile::TempDir) -> Option<String> {
        fs::read_to_string(root.path().join("proc/sys/vm/drop_caches")).ok()
    }

    #[test]
    fn nothing_is_dropped_if_nobody_learns_of_it() {
        let root = guest(false);
        assert_eq!(PageCache::below(root.path()).drop().unwrap(), 0);
        assert_eq!(asked(&root), None);
    }

    #[test]
    fn only_clean_pages_are_dropped() {
        let root = guest(true);
        let cache = PageCache::below(root.path());
        assert_eq!(cache.size().unwrap(), 1024 << 10);
        // Nobody shrinks this one.
        assert_eq!(cache.drop().unwrap(), 0);
        assert_eq!(asked(&root).as_deref(), Some(PAGES));
    }
}

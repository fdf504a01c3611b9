//! The base system: debootstrap, our files, ext4 without a loop mount.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{FILES, ImageError, PACKAGES, SUITE, bootstrap, file};
use crate::command::{self, CommandError};

/// Removed from the base system: caches, and what a test guest has no reader for.
const UNWANTED: &[&str] = &[
    "var/cache/apt/archives",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
];

pub(super) fn bootstrap(root: &Path) -> Result<(), ImageError> {
    let mut command = bootstrap::command(SUITE, PACKAGES, root).ok_or(ImageError::NoMirror)?;
    command::output(&mut command)?;
    Ok(())
}

pub(super) fn configure(root: &Path, ssh_key: &Path) -> Result<(), ImageError> {
    for unwanted in UNWANTED {
        let path = root.join(unwanted);
        std::fs::remove_dir_all(&path).map_err(file("remove", &path))?;
    }
    for (path, mode, content) in FILES {
        install(&root.join(path), *mode, content.as_bytes())?;
    }
    let private = std::fs::read(ssh_key).map_err(file("read", ssh_key))?;
    let public = ssh_key.with_extension("pub");
    let public = std::fs::read(&public).map_err(file("read", &public))?;
    install(&root.join("root/.ssh/id_ed25519"), 0o600, &private)?;
    install(&root.join("root/.ssh/authorized_keys"), 0o600, &public)?;
    let init = root.join("sbin/init");
    std::os::unix::fs::symlink("/bin/busybox", &init).map_err(file("link", &init))
}

fn install(path: &Path, mode: u32, content: &[u8]) -> Result<(), ImageError> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory).map_err(file("make", directory))?;
    std::fs::write(path, content).map_err(file("write", path))?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(file("chmod", path))
}

/// The kernel leaves the root for the host; Debian's own initrd is of no use to either.
pub(super) fn take_kernel(root: &Path, kernel: &Path) -> Result<(), ImageError> {
    let boot = root.join("boot");
    let mut found = None;
    for entry in std::fs::read_dir(&boot).map_err(file("list", &boot))? {
        let path = entry.map_err(file("list", &boot))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("vmlinuz-") {
            std::fs::copy(&path, kernel).map_err(file("copy", &path))?;
            found = Some(());
        }
        std::fs::remove_file(&path).map_err(file("remove", &path))?;
    }
    found.ok_or(ImageError::Missing("kernel in /boot"))
}

pub(super) fn make_file_system(root: &Path, image: &Path) -> Result<(), ImageError> {
    let size = command::run("du", [Path::new("-sm"), root].map(Path::as_os_str))?;
    let used: u64 = size
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .ok_or(ImageError::Missing("size (du)"))?;
    ext4(root, image, "symvirt-base", used + used / 8 + 32)?;
    Ok(())
}

/// Makes an ext4 image of `mebibytes` with the content of `root`. The guest mounts it read-only:
/// no journal. Without metadata checksums the small initrd needs no checksum drivers.
pub(super) fn ext4(
    root: &Path,
    image: &Path,
    label: &str,
    mebibytes: u64,
) -> Result<(), CommandError> {
    // A leftover of another size would keep its size.
    let fresh: PathBuf = image.with_extension("new");
    std::fs::remove_file(&fresh).ok();
    command::output(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", label])
            .args(["-O", "^has_journal,^metadata_csum,^64bit", "-d"])
            .arg(root)
            .arg(&fresh)
            .arg(format!("{mebibytes}M")),
    )?;
    std::fs::rename(&fresh, image).map_err(|source| CommandError::Start {
        program: format!("rename {}", fresh.display()),
        source,
    })
}

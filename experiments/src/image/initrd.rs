//! The initial RAM disk: busybox, the modules that reach the root file system, one script.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{ImageError, file};
use crate::command;

/// Its `/init`.
pub(super) const INIT: &str = include_str!("../../guest/initrd-init");

/// Modules that the kernel has not built in; what they depend on is added.
const MODULES: &[&str] = &[
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "overlay",
    "virtio_net",
];

pub(super) fn make(root: &Path, image: &Path) -> Result<(), ImageError> {
    let tree = image.with_extension("tree");
    for directory in [
        "bin", "dev", "proc", "sys", "lower", "over", "root", "modules",
    ] {
        let path = tree.join(directory);
        std::fs::create_dir_all(&path).map_err(file("make", &path))?;
    }
    let busybox = tree.join("bin/busybox");
    std::fs::copy(root.join("usr/bin/busybox"), &busybox).map_err(file("copy", &busybox))?;
    let init = tree.join("init");
    std::fs::write(&init, INIT).map_err(file("write", &init))?;
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755))
        .map_err(file("chmod", &init))?;

    let mut order = String::new();
    for module in modules(root)? {
        let packed = root.join(module.trim_start_matches('/'));
        let name = Path::new(&module).file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let name = name.trim_end_matches(".xz");
        let target = tree.join("modules").join(name);
        unpack(&packed, &target)?;
        order.push_str(name);
        order.push('\n');
    }
    let list = tree.join("modules/order");
    std::fs::write(&list, order).map_err(file("write", &list))?;

    archive(&tree, image)?;
    std::fs::remove_dir_all(&tree).map_err(file("remove", &tree))
}

/// Paths of the modules in the order in which they can be loaded.
fn modules(root: &Path) -> Result<Vec<String>, ImageError> {
    let directory = root.join("usr/lib/modules");
    let version = std::fs::read_dir(&directory)
        .map_err(file("list", &directory))?
        .flatten()
        .next()
        .ok_or(ImageError::Missing("kernel modules"))?
        .file_name();
    let said = command::output(
        Command::new("chroot")
            .arg(root)
            .args(["/usr/sbin/modprobe", "--show-depends", "--set-version"])
            .arg(version)
            .arg("--all")
            .args(MODULES),
    )?;
    let mut seen = BTreeSet::new();
    let paths = said.lines().filter_map(|line| {
        let path = line.strip_prefix("insmod ")?.split_whitespace().next()?;
        seen.insert(path.to_owned()).then(|| path.to_owned())
    });
    Ok(paths.collect())
}

fn unpack(packed: &Path, target: &Path) -> Result<(), ImageError> {
    if packed.extension().is_none_or(|extension| extension != "xz") {
        std::fs::copy(packed, target).map_err(file("copy", packed))?;
        return Ok(());
    }
    let output = std::fs::File::create(target).map_err(file("write", target))?;
    let status = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(packed)
        .stdout(output)
        .status()
        .map_err(file("unpack", packed))?;
    if status.success() {
        Ok(())
    } else {
        Err(ImageError::Missing("module that xz can unpack"))
    }
}

fn archive(tree: &Path, image: &Path) -> Result<(), ImageError> {
    let listed = command::output(Command::new("find").current_dir(tree).arg("."))?;
    command::output_with_input(
        Command::new("cpio")
            .current_dir(tree)
            .args([
                "--create",
                "--format=newc",
                "--quiet",
                "--owner=0:0",
                "--file",
            ])
            .arg(image),
        listed.as_bytes(),
    )?;
    Ok(())
}

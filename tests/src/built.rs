//! Our own programs, in the profile in which users get them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The programs of a release build.
#[derive(Clone, Debug)]
pub struct Release {
    /// `libsymvirt.so`
    pub library: PathBuf,
    /// `symvirt-guest`
    pub guest: PathBuf,
    /// `symvirtd`
    pub daemon: PathBuf,
    /// `symvirt`
    pub command: PathBuf,
}

/// Cargo's target directory, in which this test or benchmark lies.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let profile = |folder: &&Path| {
        ["debug", "release"]
            .iter()
            .any(|name| folder.file_name().is_some_and(|own| own == *name))
    };
    let target = program.ancestors().find(profile).and_then(Path::parent);
    target.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        Path::to_owned,
    )
}

/// Builds all of them once per process; nothing is done if they are up to date.
///
/// It is the build of `cargo xtask test`, which this then finds done: cargo chooses other features
/// of dependencies for single packages.
///
/// # Panics
/// When they do not build: there is nothing to test then.
pub fn release() -> &'static Release {
    static RELEASE: OnceLock<Release> = OnceLock::new();
    RELEASE.get_or_init(|| {
        let target = target_dir();
        let output = cargo()
            .args(["build", "--quiet", "--release"])
            .arg("--target-dir")
            .arg(&target)
            .output()
            .unwrap_or_else(|error| panic!("start cargo: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "it does not build:\n{stderr}");
        let release = target.join("release");
        Release {
            library: release.join("libsymvirt.so"),
            guest: release.join("symvirt-guest"),
            daemon: release.join("symvirtd"),
            command: release.join("symvirt"),
        }
    })
}

/// Cargo without what the cargo that runs this test has set about the test's package: some build
/// scripts (ring's) would run again for it, and all that depends on them be built again.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

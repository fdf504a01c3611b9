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

/// Builds library and guest program once per process; nothing is done if they are up to date.
///
/// # Panics
/// When they do not build: there is nothing to test then.
pub fn release() -> &'static Release {
    static RELEASE: OnceLock<Release> = OnceLock::new();
    RELEASE.get_or_init(|| {
        let release = build("symvirt-guest");
        Release {
            library: release.join("libsymvirt.so"),
            guest: release.join("symvirt-guest"),
        }
    })
}

/// Builds `symvirtd` and `symvirt`, in this order, once per process.
///
/// # Panics
/// When they do not build.
pub fn daemons() -> &'static [PathBuf; 2] {
    static DAEMONS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    DAEMONS.get_or_init(|| {
        let release = build("symvirt-host");
        [release.join("symvirtd"), release.join("symvirt")]
    })
}

/// Where the programs of a package are once they are built.
fn build(package: &str) -> PathBuf {
    let target = target_dir();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release", "--package", package])
        .arg("--target-dir")
        .arg(&target)
        .output()
        .unwrap_or_else(|error| panic!("start cargo: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{package} does not build:\n{stderr}"
    );
    target.join("release")
}

//! What the test bed needs of the machine, checked before anything is changed.

use std::path::Path;

/// Something that is missing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Requirement {
    /// Not root.
    #[error("root is needed (network namespaces, taps); this is user {0}")]
    Root(u32),
    /// No network namespaces.
    #[error("network namespaces are needed; this kernel or container has none")]
    Namespaces,
    /// No tap devices.
    #[error("/dev/net/tun is needed and cannot be opened")]
    Tun,
}

/// Checks without side effect.
///
/// # Errors
/// The first [`Requirement`] that is not met.
pub fn check() -> Result<(), Requirement> {
    let user = nix::unistd::geteuid();
    if !user.is_root() {
        return Err(Requirement::Root(user.as_raw()));
    }
    // In a child: the namespace ends with it.
    let unshared = std::process::Command::new("unshare")
        .args(["--net", "--mount", "--", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !unshared || !Path::new("/proc/self/ns/net").exists() {
        return Err(Requirement::Namespaces);
    }
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    tun.map(drop).map_err(|_| Requirement::Tun)
}

//! debootstrap, from the mirror of this machine.
//!
//! Only the standard library: the end-to-end tests compile this file too, for a Debian in a
//! directory instead of a guest.

use std::path::Path;
use std::process::Command;

use super::mirror;

/// The command that makes `suite` with `packages` in `root`; none if apt knows no Debian mirror.
///
/// In a mount and process namespace of its own, debootstrap's mounts and children end with it,
/// however it ends.
pub fn command(suite: &str, packages: &[&str], root: &Path) -> Option<Command> {
    let mirror = mirror::of_suite(suite).or_else(|| mirror::of_suite("bookworm"))?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
        .args(["debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", packages.join(",")))
        .arg(suite)
        .arg(root)
        .arg(mirror);
    if let Some(proxy) = apt_proxy() {
        command.env("http_proxy", proxy);
    }
    Some(command)
}

/// The proxy that apt uses, which debootstrap knows nothing of.
fn apt_proxy() -> Option<String> {
    let words = ["shell", "PROXY", "Acquire::http::Proxy"];
    let said = Command::new("apt-config").args(words).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let proxy = said.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?;
    (!proxy.is_empty() && proxy != "DIRECT").then(|| proxy.to_owned())
}

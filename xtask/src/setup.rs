//! Packages by apt: only what is missing, so that a second run costs one `dpkg-query`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::machine::Privilege;
use crate::mirror;
use crate::step::{Ended, Step};

const SUITE: &str = "bookworm";

/// From the release itself: building, running MPI here, making the guest image.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "clang-14",
    "cpio",
    "debootstrap",
    "e2fsprogs",
    "g++",
    "gcc",
    "gdb",
    "gfortran",
    "hpcc",
    "iproute2",
    "kmod",
    "lammps",
    "libc6-dev",
    "libclang-14-dev",
    "libibverbs-dev",
    "libmpich-dev",
    "libopenmpi-dev",
    "librdmacm-dev",
    "libucx-dev",
    "make",
    "mpich",
    "openmpi-bin",
    "openssh-client",
    "pkg-config",
    "procps",
    "python3-mpi4py",
    "python3-venv",
    "quantum-espresso",
    "quantum-espresso-data",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurmctld",
    "slurmd",
    "systemd",
    "ucx-utils",
    "valgrind",
    "xz-utils",
];

/// From backports: the release's own QEMU (7.2) is too old.
const BACKPORTS: &[&str] = &["ipxe-qemu", "qemu-system-x86", "qemu-utils", "seabios"];

/// First major version of QEMU that will do.
const QEMU: u32 = 10;

/// Installs what is missing.
///
/// # Errors
/// What apt said; packages installed before it failed stay.
pub fn run(privilege: Privilege) -> anyhow::Result<()> {
    let installed = installed()?;
    let missing: Vec<&str> = PACKAGES
        .iter()
        .copied()
        .filter(|package| !installed.contains_key(*package))
        .collect();
    let old: Vec<&str> = BACKPORTS
        .iter()
        .copied()
        .filter(|package| match installed.get(*package) {
            None => true,
            Some(version) => package.starts_with("qemu") && major(version) < QEMU,
        })
        .collect();
    if missing.is_empty() && old.is_empty() {
        return Ok(());
    }
    println!(
        "setup: apt installs {}",
        [&missing[..], &old[..]].concat().join(" ")
    );
    let backports = format!("{SUITE}-backports");
    if !old.is_empty() && !mirror::has_suite(&backports) {
        add_source(privilege, &backports)?;
    }
    apt(privilege, &["update"])?;
    if !missing.is_empty() {
        install(privilege, &[], &missing)?;
    }
    if !old.is_empty() {
        install(privilege, &["--target-release", &backports], &old)?;
    }
    Ok(())
}

fn installed() -> anyhow::Result<BTreeMap<String, String>> {
    let format = "${db:Status-Abbrev}|${Package}|${Version}\n";
    let said = crate::said(Command::new("dpkg-query").args(["-W", "-f", format]))?;
    let lines = said.lines().filter_map(|line| {
        let (package, version) = line.strip_prefix("ii |")?.split_once('|')?;
        Some((package.to_owned(), version.to_owned()))
    });
    Ok(lines.collect())
}

/// First number of a Debian version, behind its epoch.
fn major(version: &str) -> u32 {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Adds backports from the mirror that the machine already uses.
fn add_source(privilege: Privilege, backports: &str) -> anyhow::Result<()> {
    let mirror = mirror::of_suite(SUITE)
        .with_context(|| format!("/etc/apt has no source for {SUITE}: which mirror to use?"))?;
    let file = std::env::temp_dir().join(format!("symvirt-{backports}-{}", std::process::id()));
    std::fs::write(&file, format!("deb {mirror} {backports} main\n"))?;
    let target = format!("/etc/apt/sources.list.d/symvirt-{backports}.list");
    let mut command = privilege.command(Path::new("install"));
    command.args(["-m", "644"]).arg(&file).arg(&target);
    let copied = crate::said(&mut command);
    std::fs::remove_file(&file)?;
    copied.with_context(|| format!("write {target}"))?;
    Ok(())
}

fn install(privilege: Privilege, options: &[&str], packages: &[&str]) -> anyhow::Result<()> {
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(options);
    words.extend(packages);
    apt(privilege, &words)
}

fn apt(privilege: Privilege, words: &[&str]) -> anyhow::Result<()> {
    let mut command = privilege.command(Path::new("env"));
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"])
        .args(["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"])
        .args(words);
    match Step::new("apt-get", command)
        .within(Duration::from_secs(1200))
        .run()?
    {
        Ended::Well => Ok(()),
        Ended::Badly(status) => bail!("apt-get {}: {status}", words.join(" ")),
        Ended::Interrupted => bail!("interrupted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_ignores_the_epoch() {
        assert_eq!(major("1:10.0.2+ds-2+deb13u1~bpo12+1"), 10);
        assert_eq!(major("1:7.2+dfsg-7"), 7);
    }
}

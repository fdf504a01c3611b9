//! `cargo xtask …`: the commands a newcomer needs, from a bare Debian 12 with Rust.
//!
//! | module | holds |
//! |---|---|
//! | [`failures`] | what failed, for the end of the log |
//! | [`fuzz`] | `cargo xtask soak fuzz`: decoders under a fuzzer |
//! | [`machine`] | what the machine must allow, checked before anything is changed |
//! | [`setup`] | packages by apt |
//! | [`step`] | one program run to its end: signals, time limit, nothing left behind |
//! | [`verdict`] | `cargo xtask test`: the steps and their count |
#![forbid(unsafe_code)]

mod failures;
mod fuzz;
mod machine;
#[path = "../../experiments/src/image/mirror.rs"]
mod mirror;
mod setup;
mod step;
mod verdict;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};

use machine::Privilege;
use step::{Ended, Step};

const USAGE: &str = "\
cargo xtask demo                    an unmodified MPI job crosses from RDMA to Ethernet and back
cargo xtask test                    everything that gates
cargo xtask setup                   install by apt what is missing (the others do that too)
cargo xtask soak --minutes N        every program with every MPI, switched all the time; a table
cargo xtask soak suites [--mpi NAME] [--only WORD] [--minutes N] [--resume]  MPICH's own tests, switched all the time
cargo xtask soak --page             docs/compatibility.md, from the record of the last soak
cargo xtask soak crossings [MINUTES]  crossings of guests without end
cargo xtask soak faults [--minutes N] [--resume | --table]  daemons, agents, QEMUs killed, the link cut, in every phase
cargo xtask soak fuzz [--minutes N] [TARGET]  decoders of bytes of other processes, by cargo-fuzz
cargo xtask bench overhead|switch   with and without the library; what a switch costs
cargo xtask bench scale             what a switch costs on 2 to 32 ranks
cargo xtask bench switch --guests   the same in guests, between verbs and TCP
cargo xtask bench stall             a live move beside a plain migration of the same VMs
cargo xtask lab up|down|shell       the test bed, to play with";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    step::adopt_orphans()?;
    match words.as_slice() {
        ["setup"] => {
            setup::run(machine::privilege()?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["test"] => verdict::run(prepared()?),
        ["demo"] => lab(prepared()?, &words),
        ["soak", "crossings", rest @ ..] => {
            let words: Vec<&str> = ["soak"].iter().chain(rest).copied().collect();
            lab(prepared()?, &words)
        }
        ["soak", "faults", rest @ ..] => {
            let words: Vec<&str> = ["faults"].iter().chain(rest).copied().collect();
            lab(prepared()?, &words)
        }
        ["soak", "fuzz", rest @ ..] => {
            if fuzz::explained(rest) {
                return Ok(ExitCode::SUCCESS);
            }
            prepared()?;
            fuzz::run(rest)
        }
        ["soak", rest @ ..] => {
            prepared()?;
            build()?;
            let mut command = here(target_directory().join("release/symvirt-soak"));
            command.args(rest);
            finish(Step::new("symvirt-soak", command).within(Duration::from_secs(24 * 3600)))
        }
        ["bench", "stall"] => lab(prepared()?, &words),
        ["bench", "switch", "--guests", rest @ ..] => {
            let words: Vec<&str> = ["bench", "switch"].iter().chain(rest).copied().collect();
            lab(prepared()?, &words)
        }
        ["bench", which @ ("overhead" | "switch" | "scale"), ..] => {
            prepared()?;
            build()?;
            println!("{which}, on this machine; the release build");
            let mut command = here(target_directory().join("release/symvirt-bench"));
            command.args(&words[1..]);
            finish(Step::new("symvirt-bench", command))
        }
        ["lab", verb @ ("up" | "down" | "shell"), rest @ ..] => {
            let privilege = prepared()?;
            let words: Vec<&str> = std::iter::once(*verb).chain(rest.iter().copied()).collect();
            lab(privilege, &words)
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// The machine is fit and everything is installed.
fn prepared() -> anyhow::Result<Privilege> {
    let privilege = machine::check()?;
    setup::run(privilege)?;
    Ok(privilege)
}

fn lab(privilege: Privilege, words: &[&str]) -> anyhow::Result<ExitCode> {
    build()?;
    let mut command = lab_command(privilege);
    command.args(words);
    let mut step = Step::new("symvirt-lab", command).within(Duration::from_secs(24 * 3600));
    if matches!(words, ["shell", ..]) {
        step = step.interactive();
    }
    if words == ["up"] {
        step = step.leaving_processes();
    }
    finish(step)
}

fn finish(step: Step) -> anyhow::Result<ExitCode> {
    Ok(match step.run()? {
        Ended::Well => ExitCode::SUCCESS,
        Ended::Badly(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
        Ended::Interrupted => ExitCode::from(130),
    })
}

/// What runs in guests and on hosts, optimised. Always all of it: cargo chooses other features of
/// dependencies for single packages, and would build them once more.
const RELEASE_BUILD: [&str; 3] = ["build", "--quiet", "--release"];

fn build() -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(RELEASE_BUILD);
    match Step::new("build", command).run()? {
        Ended::Well => Ok(()),
        Ended::Badly(status) => bail!("build: {status}"),
        Ended::Interrupted => bail!("interrupted"),
    }
}

fn lab_command(privilege: Privilege) -> Command {
    let program = target_directory().join("release/symvirt-lab");
    let mut command = privilege.command(&program);
    command.current_dir(repository());
    command
}

/// Cargo as a person would call it: what the cargo that runs us has set about our own package
/// would make some build scripts (ring's) run again, and half of the daemon with them.
fn cargo() -> Command {
    let mut cargo = here(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// A program that is run in the repository by whoever asks.
fn here(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(repository())
        .env("PATH", machine::search_path());
    command
}

fn target_directory() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    repository().join(chosen.unwrap_or_else(|| "target".into()))
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: the package is a folder of the repository")
}

/// Standard output of a short program, if it succeeds.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!(
            "{program}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

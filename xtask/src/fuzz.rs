//! `cargo xtask soak fuzz`: the decoders of all bytes of other processes, under a fuzzer that is
//! guided by coverage, each for its share of the time.
//!
//! ```text
//!  cargo install cargo-fuzz ─► build, AddressSanitizer ─► target by target ─► table
//!                                        seeds + corpus ──┘      └─► findings/TARGET/crash-…
//! ```
//!
//! Everything lies in `target/fuzz`; what was learnt (`corpus`) is where the next run goes on.

mod tally;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::step::{Ended, Step};
use tally::{Tally, table};

/// The version that the options below are for.
const CARGO_FUZZ: &str = "0.13.2";
const FOLDER: &str = "tests/fuzz";

const HELP: &str = "\
cargo xtask soak fuzz [--minutes N] [TARGET]

Feeds decoders of bytes of other processes with what a fuzzer makes, guided by coverage, and looks
at properties: see tests/fuzz/src/lib.rs. Installs cargo-fuzz into target/fuzz if it is not there.

  --minutes N   for all targets together [default: 12]; a build comes before, minutes the first time
  TARGET        this one only; without it all of tests/fuzz/targets, one after the other

Begins with tests/fuzz/seeds and with what earlier runs have found worth keeping. A finding is a
panic, a memory error, 10 seconds for one input, or 64 MiB for one allocation. It ends its target's
run, is kept in target/fuzz/findings, and makes the exit status 1. The input alone again:

  target/fuzz/build/HOST/release/TARGET target/fuzz/findings/TARGET/crash-…

What was fixed becomes a test of the crate concerned. The seeds that encoders of ours make are made
anew by `cargo run -p symvirt-fuzz --example seeds`; `cargo test` replays all of them.";

/// What is asked for.
#[derive(PartialEq, Eq, Debug)]
struct Wanted<'a> {
    minutes: u64,
    target: Option<&'a str>,
}

/// Whether nothing but the help is asked for; it is printed.
pub fn explained(words: &[&str]) -> bool {
    let asked = words.iter().any(|word| ["--help", "-h"].contains(word));
    if asked {
        println!("{HELP}");
    }
    asked
}

/// Fuzzes until the time is over.
///
/// # Errors
/// Words that are not understood, and what could not be installed or built.
pub fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
    let wanted = parse(words)?;
    let known = targets()?;
    let targets = match wanted.target {
        None => known,
        Some(name) => {
            let known_names = known.join(", ");
            ensure!(
                known.iter().any(|target| target == name),
                "no target `{name}`; there are {known_names}"
            );
            vec![name.to_owned()]
        }
    };
    let home = crate::target_directory().join("fuzz");
    build(&installed(&home)?, &home)?;
    let programs = home.join("build").join(host()?).join("release");
    let share = Duration::from_secs(60 * wanted.minutes) / u32::try_from(targets.len())?;
    let mut tallies = Vec::new();
    let mut interrupted = false;
    for target in &targets {
        println!("fuzz: {target}, {} s", share.as_secs());
        let (tally, ended) = fuzz(&programs.join(target), target, &home, share)?;
        tallies.push((target.as_str(), tally));
        interrupted = matches!(ended, Ended::Interrupted);
        if interrupted {
            break;
        }
    }
    print!("\n{}", table(&tallies));
    let findings = tallies
        .iter()
        .flat_map(|(target, tally)| tally.findings.iter().map(move |file| (target, file)));
    let mut found = false;
    for (target, file) in findings {
        found = true;
        println!("again: {} {file}", programs.join(target).display());
    }
    Ok(match (interrupted, found) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

fn parse<'a>(words: &[&'a str]) -> anyhow::Result<Wanted<'a>> {
    let mut wanted = Wanted {
        minutes: 12,
        target: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--minutes" => {
                let minutes = words.next().context("--minutes needs a number")?;
                wanted.minutes = minutes.parse().context("--minutes needs a number")?;
            }
            name if !name.starts_with('-') && wanted.target.is_none() => wanted.target = Some(name),
            other => bail!("`{other}` is not understood\n\n{HELP}"),
        }
    }
    ensure!((1..=24 * 60).contains(&wanted.minutes), "a minute to a day");
    Ok(wanted)
}

fn targets() -> anyhow::Result<Vec<String>> {
    let folder = crate::repository().join(FOLDER).join("targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort_unstable();
    Ok(names)
}

/// The folder of a cargo-fuzz, installed if it is not there.
fn installed(home: &Path) -> anyhow::Result<PathBuf> {
    let root = home.join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    if !root.join("bin/cargo-fuzz").exists() {
        println!(
            "fuzz: cargo installs cargo-fuzz {CARGO_FUZZ} into {}",
            root.display()
        );
        let mut command = crate::cargo();
        command
            .args(["install", "--quiet", "--locked", "cargo-fuzz"])
            .args(["--version", CARGO_FUZZ, "--root"])
            .arg(&root);
        done("install cargo-fuzz", command)?;
    }
    Ok(root.join("bin"))
}

fn build(programs: &Path, home: &Path) -> anyhow::Result<()> {
    println!("fuzz: builds the targets with AddressSanitizer");
    let mut command = Command::new(programs.join("cargo-fuzz"));
    command
        .current_dir(crate::repository())
        // The sanitizer is an option that a stable compiler has, and keeps to itself.
        .env("RUSTC_BOOTSTRAP", "1")
        // All of the daemon is instrumented: optimising it takes longer than it saves.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_TERM_QUIET", "true")
        .args(["build", "--fuzz-dir", FOLDER, "--features", "libfuzzer"])
        .args(["--codegen-units", "16", "--target-dir"])
        .arg(home.join("build"));
    done("build", command)
}

fn done(what: &str, command: Command) -> anyhow::Result<()> {
    let step = Step::new(what, command).within(Duration::from_secs(3600));
    match step.run()? {
        Ended::Well => Ok(()),
        Ended::Badly(why) => bail!("{what}: {why}"),
        Ended::Interrupted => bail!("interrupted"),
    }
}

/// The platform that programs are built for, which names a folder.
fn host() -> anyhow::Result<String> {
    let said = crate::said(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn fuzz(
    program: &Path,
    target: &str,
    home: &Path,
    share: Duration,
) -> anyhow::Result<(Tally, Ended)> {
    let corpus = home.join("corpus").join(target);
    let findings = home.join("findings").join(target);
    for folder in [&corpus, &findings] {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut command = Command::new(program);
    command
        .current_dir(crate::repository())
        // As cargo-fuzz runs it.
        .env("ASAN_OPTIONS", "detect_odr_violation=0")
        .args([
            &corpus,
            &crate::repository().join(FOLDER).join("seeds").join(target),
        ])
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(format!("-max_total_time={}", share.as_secs()))
        .args(["-timeout=10", "-malloc_limit_mb=64", "-rss_limit_mb=2048"])
        .arg("-print_final_stats=1");
    let mut tally = Tally::default();
    let ended = Step::new(target, command)
        .within(share + Duration::from_secs(120))
        .quiet()
        .run_heard(&mut |line| {
            if tally.hear(line) {
                println!("{line}");
            }
        })?;
    if let Ended::Badly(why) = &ended {
        println!("fuzz: {target}: {why}");
        if tally.findings.is_empty() {
            bail!("{target} did not run to its end: {why}");
        }
    }
    Ok((tally, ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_time_and_a_target() {
        let parsed = parse(&["frame", "--minutes", "3"]).expect("understood");
        let wanted = Wanted {
            minutes: 3,
            target: Some("frame"),
        };
        assert_eq!(parsed, wanted);
        for words in [
            &["--minutes"][..],
            &["--minutes", "0"],
            &["a", "b"],
            &["-x"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}

//! `cargo xtask test`: every step is run, also after one has failed, and the end says what
//! failed and counts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::failures::Failures;
use crate::machine::Privilege;
use crate::step::{Ended, Step};

/// For one step. A slow machine that has nothing yet takes half an hour for the tests alone.
const LONGEST: Duration = Duration::from_secs(75 * 60);

/// Tests counted over all steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    passed: u32,
    failed: u32,
}

/// Runs all steps.
///
/// # Errors
/// If a step cannot be started.
pub fn run(privilege: Privilege) -> anyhow::Result<ExitCode> {
    let mut count = Count::default();
    let mut broken = Vec::new();
    let mut step = |name: &str, command: std::process::Command| -> anyhow::Result<bool> {
        println!("── {name}");
        let begun = Instant::now();
        let mut heard = Count::default();
        let mut failures = Failures::default();
        let ended = Step::new(name, command)
            .within(LONGEST)
            .run_heard(&mut |line| {
                heard = heard.and(line);
                failures.hear(line);
            })?;
        count.passed += heard.passed;
        count.failed += heard.failed;
        println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
        match ended {
            Ended::Well => {
                if heard == Count::default() {
                    count.passed += 1;
                }
            }
            Ended::Badly(why) => {
                if heard.failed == 0 {
                    count.failed += 1;
                }
                broken.push(format!("{name}: {why}\n{failures}"));
            }
            Ended::Interrupted => return Ok(false),
        }
        Ok(true)
    };

    let mut go_on = true;
    for (name, words) in [
        ("format", &["fmt", "--all", "--check"][..]),
        (
            "lints",
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ][..],
        ),
        ("release build", &crate::RELEASE_BUILD[..]),
        (
            "tests on this machine",
            &["test", "--workspace", "--no-fail-fast"][..],
        ),
    ] {
        let mut command = crate::cargo();
        // The end of a log is what is kept of it: the reasons, not backtraces.
        command.env("RUST_BACKTRACE", "0").args(words);
        go_on = go_on && step(name, command)?;
    }
    if go_on {
        // Loom replaces atomics for the whole build, so the model is built beside the others.
        let mut command = crate::cargo();
        command.env("RUSTFLAGS", "--cfg loom").args([
            "test",
            "--package",
            "symvirt-guest",
            "--lib",
            "--target-dir",
        ]);
        command.arg(crate::target_directory().join("loom"));
        go_on = step("gate, turns and queue, under every interleaving", command)?;
    }
    if go_on {
        let mut command = crate::lab_command(privilege);
        command.arg("test");
        go_on = step("tests in guests", command)?;
    }
    for failure in &broken {
        println!("── failed: {}", failure.trim_end());
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(if !go_on {
        ExitCode::from(130)
    } else if broken.is_empty() && count.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Count {
    /// Adds what a closing line of cargo's test harness says.
    fn and(self, line: &str) -> Self {
        let Some((_, numbers)) = line.split_once("test result: ") else {
            return self;
        };
        let number_before = |what: &str| -> u32 {
            let words: Vec<&str> = numbers.split([' ', ';', '.']).collect();
            let at = words.iter().position(|word| *word == what);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok())
                .unwrap_or(0)
        };
        Self {
            passed: self.passed + number_before("passed"),
            failed: self.failed + number_before("failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_the_test_harness_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered";
        let count = Count::default().and(line).and("running 3 tests").and(line);
        assert_eq!(
            count,
            Count {
                passed: 24,
                failed: 6
            }
        );
    }
}

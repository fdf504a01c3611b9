//! What failed, gathered from the output of steps as it goes by, to be said once more at the end:
//! of a long log often only that is kept.
//!
//! Understands cargo's test harness (`---- NAME stdout ----` and what follows) and `symvirt-lab
//! test` (`failed: NAME` and what follows); of a step without such lines, the end of its output.

use std::collections::VecDeque;
use std::fmt;

/// Lines that are kept of one failure.
const KEPT: usize = 20;

/// The last lines of something.
#[derive(Clone, Debug, Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn add(&mut self, line: &str) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }
}

/// The failures of one step.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    tests: Vec<(String, Tail)>,
    open: bool,
    step: Tail,
}

impl Failures {
    /// The next line of the step's output.
    pub fn hear(&mut self, line: &str) {
        self.step.add(line);
        if let Some(name) = begins(line) {
            self.tests.push((name.to_owned(), Tail::default()));
            self.open = true;
        } else if line == "failures:" || line.starts_with("test result:") {
            self.open = false;
        } else if self.open
            && !line.trim().is_empty()
            && let Some((_, said)) = self.tests.last_mut()
        {
            said.add(line);
        }
    }
}

fn begins(line: &str) -> Option<&str> {
    let harness = line.strip_prefix("---- ").and_then(|rest| {
        rest.strip_suffix(" stdout ----")
            .or_else(|| rest.strip_suffix(" ----"))
    });
    harness.or_else(|| line.strip_prefix("failed: "))
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |f: &mut fmt::Formatter<'_>, tail: &Tail| {
            tail.0.iter().try_for_each(|line| writeln!(f, "    {line}"))
        };
        for (name, said) in &self.tests {
            writeln!(f, "  {name}")?;
            lines(f, said)?;
        }
        if self.tests.is_empty() {
            lines(f, &self.step)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Failures {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.hear(line));
        failures
    }

    #[test]
    fn a_failed_test_is_told_with_the_end_of_what_it_said() {
        let long: String = (0..50).map(|n| format!("line {n}\n")).collect();
        let said = heard(&format!(
            "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n{long}\n\n\
             ---- c stdout ----\npanicked\n\nfailures:\n    b\n    c\n\ntest result: FAILED."
        ))
        .to_string();
        assert!(said.starts_with("  b\n    line 30\n"), "{said}");
        assert!(said.ends_with("    line 49\n  c\n    panicked\n"), "{said}");
    }

    #[test]
    fn a_failed_scenario_is_told_with_its_reason() {
        let said = heard("test x ... FAILED (2 s)\nwhy\nfailed: x\nwhy\nbecause\ntest result: F");
        assert_eq!(said.to_string(), "  x\n    why\n    because\n");
    }

    #[test]
    fn a_step_that_runs_no_tests_is_told_by_the_end_of_its_output() {
        assert_eq!(
            heard("error: no such thing").to_string(),
            "    error: no such thing\n"
        );
    }
}

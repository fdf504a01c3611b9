//! What libFuzzer says of a run, and the table of it.

use std::fmt::Write;

/// The run of one target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Inputs that were run.
    pub runs: u64,
    /// The same in a second.
    pub speed: u64,
    /// Edges of the program that were met.
    pub coverage: u64,
    /// Inputs kept because each meets something new.
    pub corpus: u64,
    /// Files with an input that breaks something.
    pub findings: Vec<String>,
}

impl Tally {
    /// The next line; whether it is one for people.
    pub fn hear(&mut self, line: &str) -> bool {
        if let Some((_, file)) = line.split_once("Test unit written to ") {
            self.findings.push(file.trim().to_owned());
            return true;
        }
        if let Some(rest) = line.strip_prefix("stat::") {
            match rest.split_once(':') {
                Some(("number_of_executed_units", value)) => set(&mut self.runs, value),
                Some(("average_exec_per_sec", value)) => set(&mut self.speed, value),
                _ => {}
            }
            return false;
        }
        if line.starts_with('#') && line.contains(" cov: ") {
            self.count(line);
        }
        let noise = ["#", "INFO:", "Done ", "\tNEW_FUNC"];
        let word = line.starts_with('"') && line.contains("\" # Uses:");
        !line.is_empty() && !word && !noise.iter().any(|begin| line.starts_with(begin))
    }

    /// A line like `#4096 pulse cov: 120 ft: 300 corp: 20/4Kb lim: 8 exec/s: 2048 rss: 50Mb`.
    fn count(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if let Some(runs) = words.next() {
            set(&mut self.runs, runs.trim_start_matches('#'));
        }
        while let Some(word) = words.next() {
            let value = match word {
                "cov:" => &mut self.coverage,
                "corp:" => &mut self.corpus,
                "exec/s:" => &mut self.speed,
                _ => continue,
            };
            let number = words.next().unwrap_or_default();
            set(value, number.split('/').next().unwrap_or_default());
        }
    }
}

fn set(value: &mut u64, text: &str) {
    if let Ok(number) = text.trim().parse() {
        *value = number;
    }
}

/// A line for each target.
pub fn table(tallies: &[(&str, Tally)]) -> String {
    let mut text = format!(
        "{:<12} {:>12} {:>9} {:>9} {:>7}  findings\n",
        "target", "runs", "runs/s", "coverage", "corpus"
    );
    for (target, tally) in tallies {
        let Tally {
            runs,
            speed,
            coverage,
            corpus,
            findings,
        } = tally;
        let found = findings.len();
        writeln!(
            text,
            "{target:<12} {runs:>12} {speed:>9} {coverage:>9} {corpus:>7}  {found}"
        )
        .expect("invariant: a string takes all text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_counted_by_the_last_that_was_said_of_it() {
        let mut tally = Tally::default();
        let said = [
            "INFO: seed corpus: files: 3",
            "#2\tINITED cov: 100 ft: 120 corp: 3/90b exec/s: 0 rss: 40Mb",
            "#4096\tpulse  cov: 120 ft: 300 corp: 20/4Kb lim: 8 exec/s: 2048 rss: 50Mb",
            "#9000\tDONE   cov: 121 ft: 301 corp: 21/4Kb lim: 8 exec/s: 3000 rss: 50Mb",
            "Done 9000 runs in 3 second(s)",
            "stat::number_of_executed_units: 9000",
            "stat::average_exec_per_sec:     3000",
        ];
        assert!(!said.into_iter().any(|line| tally.hear(line)));
        let expected = Tally {
            runs: 9000,
            speed: 3000,
            coverage: 121,
            corpus: 21,
            findings: vec![],
        };
        assert_eq!(tally, expected);
        assert!(table(&[("frame", tally)]).contains("9000"));
    }

    #[test]
    fn a_finding_is_named_by_its_file_and_told() {
        let mut tally = Tally::default();
        assert!(tally.hear("thread '<unnamed>' panicked at tests/fuzz/src/link.rs:3:4:"));
        assert!(tally.hear("artifact_prefix='f/'; Test unit written to f/crash-12"));
        assert_eq!(tally.findings, ["f/crash-12"]);
    }
}

//! What became of the suites: JSON, and the table suite × MPI × what failed.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::run::Fate;
use crate::soak::file;

/// All tests of a folder with an MPI.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// Folder of the suite.
    pub suite: String,
    /// As the table calls it.
    pub mpi: String,
    /// Names of all that were tried, those that do not compile among them.
    #[serde(default)]
    pub tried: Vec<String>,
    /// Tests that were run.
    pub tests: u64,
    /// Switches that took effect in those that passed.
    pub switches: u64,
    /// Tests that do not compile with this MPI.
    pub not_built: u64,
    /// Tests that passed, but only when given longer than their limit.
    #[serde(default)]
    pub slow: u64,
    /// Tests that fail by themselves, too.
    pub fail_bare: u64,
    /// Name and reason of each that failed only with us.
    pub ours: Vec<(String, String)>,
}

/// What became of the suites.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// In the order in which they were first met.
    pub rows: Vec<Row>,
}

impl Record {
    /// Adds a test.
    pub fn note(&mut self, suite: &str, mpi: &str, name: &str, fate: &Fate) {
        let known = |row: &Row| row.suite == suite && row.mpi == mpi;
        let at = self.rows.iter().position(known).unwrap_or_else(|| {
            self.rows.push(Row {
                suite: suite.to_owned(),
                mpi: mpi.to_owned(),
                ..Row::default()
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.tried.push(name.to_owned());
        row.tests += u64::from(!matches!(fate, Fate::NotBuilt));
        match fate {
            Fate::Passed(switches) => row.switches += switches,
            Fate::Slow(switches) => {
                row.switches += switches;
                row.slow += 1;
            }
            Fate::FailsBare => row.fail_bare += 1,
            Fate::NotBuilt => row.not_built += 1,
            Fate::Ours(why) => row.ours.push((name.to_owned(), why.clone())),
        }
    }

    /// Whether a test was tried with an MPI.
    pub fn has(&self, mpi: &str, name: &str) -> bool {
        let mut rows = self.rows.iter().filter(|row| row.mpi == mpi);
        rows.any(|row| row.tried.iter().any(|tried| tried == name))
    }

    /// Tests that failed only with us.
    pub fn ours(&self) -> usize {
        self.rows.iter().map(|row| row.ours.len()).sum()
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        file::write(file, self)
    }

    /// # Errors
    /// When the file cannot be read, or holds no record.
    pub fn read(file: &Path) -> anyhow::Result<Record> {
        file::read(file, "cargo xtask soak suites")
    }

    /// For the page, by MPI and folder.
    pub fn section(&self) -> String {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (&row.mpi, &row.suite));
        let mut text = String::from(
            "## MPICH's own tests\n\nMade by `cargo xtask soak suites`: the programs of MPICH's \
             `test/mpi`, by their own rules, with a switch every 5 to 100 ms. What failed was run \
             by itself, with UCX as it is and with TCP alone; what fails there, too, is not ours. \
             Slow is what passes, but not within the limit that it keeps by itself.\n\n\
             | | | tests | switches | fail by themselves, too | slow | fail only with us |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in rows {
            let cells = [
                row.tests,
                row.switches,
                row.fail_bare,
                row.slow,
                row.ours.len() as u64,
            ];
            let cells = cells.map(|cell| cell.to_string()).join(" | ");
            text.push_str(&format!("| {} | {} | {cells} |\n", row.mpi, row.suite));
        }
        for (name, why) in rows_of(self) {
            let first = why.lines().next().unwrap_or_default();
            text.push_str(&format!("\n- `{name}`: {first}"));
        }
        text.push('\n');
        text
    }
}

fn rows_of(record: &Record) -> impl Iterator<Item = &(String, String)> {
    record.rows.iter().flat_map(|row| &row.ours)
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16}{:<26}{:>8}{:>10}{:>11}{:>11}{:>7}{:>7}",
            "suite", "MPI", "tests", "switches", "not built", "fail bare", "slow", "ours"
        )?;
        for row in &self.rows {
            let Row { suite, mpi, .. } = row;
            let ours = row.ours.len();
            writeln!(
                f,
                "{suite:<16}{mpi:<26}{:>8}{:>10}{:>11}{:>11}{:>7}{ours:>7}",
                row.tests, row.switches, row.not_built, row.fail_bare, row.slow
            )?;
        }
        for (name, why) in rows_of(self) {
            writeln!(f, "\nonly with us: {name}: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_a_folder_are_one_row_and_what_failed_with_us_is_named() {
        let mut record = Record::default();
        let fates = [
            Fate::Passed(7),
            Fate::Slow(2),
            Fate::FailsBare,
            Fate::NotBuilt,
            Fate::Ours("why".to_owned()),
        ];
        for fate in &fates {
            record.note("rma", "an MPI", "rma/put 2", fate);
        }
        let row = Row {
            suite: "rma".to_owned(),
            mpi: "an MPI".to_owned(),
            tried: vec!["rma/put 2".to_owned(); 5],
            tests: 4,
            switches: 9,
            not_built: 1,
            slow: 1,
            fail_bare: 1,
            ours: vec![("rma/put 2".to_owned(), "why".to_owned())],
        };
        assert_eq!(record.rows, [row]);
        assert!(record.has("an MPI", "rma/put 2"));
        assert!(!record.has("another MPI", "rma/put 2") && !record.has("an MPI", "rma/put 3"));
        assert!(record.to_string().contains("only with us: rma/put 2: why"));
        assert!(
            record
                .section()
                .contains("| an MPI | rma | 4 | 9 | 1 | 1 | 1 |")
        );
    }
}

//! What became of a soak: JSON, and the table program × MPI × switches × failures.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cases::{Case, Ended};
use super::file;

/// An MPI, as it says itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// As the table calls it.
    pub mpi: String,
    /// Its own words, and UCX's version.
    pub said: String,
}

/// All runs of a program with an MPI under a setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Program.
    pub program: String,
    /// As the table calls it.
    pub mpi: String,
    /// Name of the setting.
    pub setting: String,
    /// How often it was run.
    pub runs: u64,
    /// Switches that took effect.
    pub switches: u64,
    /// Switches that were abandoned without effect.
    pub abandoned: u64,
    /// What failed.
    pub failures: Vec<String>,
    /// What failed, and does so without switches, too.
    #[serde(default)]
    pub fail_alone: Vec<String>,
}

/// What became of a soak.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// For how long it was to run.
    pub minutes: u64,
    /// Processors and kernel.
    pub machine: String,
    /// One for each MPI.
    pub versions: Vec<Version>,
    /// In the order in which they were first run.
    pub rows: Vec<Row>,
}

/// Sums of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// Switches that took effect.
    pub switches: u64,
    /// Runs that failed.
    pub failures: u64,
    /// Runs that failed as they do by themselves.
    pub fail_alone: u64,
}

impl Record {
    /// Without any run.
    pub fn new(minutes: u64, versions: Vec<Version>) -> Record {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // Without what distributions add.
        let kernel = kernel.trim().split('-').next().unwrap_or_default();
        Record {
            minutes,
            machine: format!("{processors} processors, Linux {kernel}"),
            versions,
            rows: Vec::new(),
        }
    }

    /// Adds a run.
    pub fn note(&mut self, case: &Case, ended: &Ended) {
        let (program, mpi) = (case.subject.name(), case.mpi.to_string());
        let setting = case.setting.name;
        let known = self
            .rows
            .iter_mut()
            .find(|row| row.program == program && row.mpi == mpi && row.setting == setting);
        let row = match known {
            Some(row) => row,
            None => {
                self.rows.push(Row {
                    program: program.to_owned(),
                    mpi,
                    setting: setting.to_owned(),
                    runs: 0,
                    switches: 0,
                    abandoned: 0,
                    failures: Vec::new(),
                    fail_alone: Vec::new(),
                });
                self.rows.last_mut().expect("invariant: just pushed")
            }
        };
        row.runs += 1;
        row.switches += ended.switches;
        row.abandoned += ended.abandoned;
        let failures = match ended.fails_alone {
            true => &mut row.fail_alone,
            false => &mut row.failures,
        };
        failures.extend(ended.failure.clone());
    }

    /// Runs that failed.
    pub fn failures(&self) -> u64 {
        self.sum(|_| true).failures
    }

    /// Sums of the rows that are wanted.
    pub fn sum(&self, wanted: impl Fn(&Row) -> bool) -> Sum {
        let rows = self.rows.iter().filter(|row| wanted(row));
        rows.fold(Sum::default(), |sum, row| Sum {
            runs: sum.runs + row.runs,
            switches: sum.switches + row.switches,
            failures: sum.failures + row.failures.len() as u64,
            fail_alone: sum.fail_alone + row.fail_alone.len() as u64,
        })
    }

    /// Sums by program and MPI.
    pub fn cells(&self) -> BTreeMap<&str, BTreeMap<&str, Sum>> {
        let mut cells: BTreeMap<&str, BTreeMap<&str, Sum>> = BTreeMap::new();
        for row in &self.rows {
            let (program, mpi) = (row.program.as_str(), row.mpi.as_str());
            let sum = self.sum(|other| other.program == program && other.mpi == mpi);
            cells.entry(program).or_default().insert(mpi, sum);
        }
        cells
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        file::write(file, self)
    }

    /// # Errors
    /// When the file cannot be read, or holds no record.
    pub fn read(file: &Path) -> anyhow::Result<Record> {
        file::read(file, "cargo xtask soak --minutes 20")
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.switches)?;
        if self.failures > 0 {
            write!(f, " ({} of {} FAILED)", self.failures, self.runs)?;
        }
        match self.fail_alone {
            0 => Ok(()),
            alone => write!(f, " ({alone} of {} fail alone)", self.runs),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns: Vec<&str> = self.versions.iter().map(|it| it.mpi.as_str()).collect();
        columns.dedup();
        write!(f, "{:<18}", "switches")?;
        columns.iter().try_for_each(|mpi| write!(f, "{mpi:>26}"))?;
        writeln!(f)?;
        for (program, sums) in self.cells() {
            write!(f, "{program:<18}")?;
            for mpi in &columns {
                let cell = sums.get(mpi).map(Sum::to_string).unwrap_or_default();
                write!(f, "{cell:>26}")?;
            }
            writeln!(f)?;
        }
        let all = self.sum(|_| true);
        writeln!(
            f,
            "\n{} runs, {} switches, {} failures, {} more that fail alone",
            all.runs, all.switches, all.failures, all.fail_alone
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::cases;

    #[test]
    fn runs_of_one_kind_are_one_row_and_failures_are_told() {
        let mut record = Record::new(1, Vec::new());
        let case = cases::endless().next().expect("endless");
        let well = Ended {
            switches: 7,
            ..Ended::default()
        };
        record.note(&case, &well);
        record.note(&case, &Ended::failed("why"));
        let alone = Ended {
            fails_alone: true,
            ..Ended::failed("why")
        };
        record.note(&case, &alone);
        assert_eq!(record.rows.len(), 1);
        assert_eq!(
            record.sum(|_| true),
            Sum {
                runs: 3,
                switches: 7,
                failures: 1,
                fail_alone: 1
            }
        );
        assert!(
            record
                .to_string()
                .contains("3 runs, 7 switches, 1 failures, 1 more")
        );
    }
}

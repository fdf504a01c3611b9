//! What became of faults, on disk: one run writes it, a later one goes on with it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use symvirt_host::operation::Phase;

use crate::scenario::killed::{Copies, Kill, Victim};

/// All crossings with one kind of fault.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Row {
    victim: Victim,
    mode: String,
    #[serde(default)]
    copies: Copies,
    from: String,
    to: String,
    at: Phase,
    done: u32,
    degraded: u32,
    rolled_back: u32,
    /// Those that did not end as they may.
    failed: u32,
    /// From the fault to the end of the operation, at most, in seconds.
    slowest: f64,
}

impl Row {
    fn of(kill: &Kill) -> Self {
        Self {
            victim: kill.victim,
            mode: kill.mode.to_owned(),
            copies: kill.copies,
            from: kill.from.to_owned(),
            to: kill.to.to_owned(),
            at: kill.at,
            done: 0,
            degraded: 0,
            rolled_back: 0,
            failed: 0,
            slowest: 0.0,
        }
    }

    fn is_of(&self, kill: &Kill) -> bool {
        let ways = (&*self.mode, &*self.from, &*self.to);
        let kinds = (self.victim, self.at, self.copies);
        kinds == (kill.victim, kill.at, kill.copies) && ways == (kill.mode, kill.from, kill.to)
    }
}

/// What became of all of them, in the order in which they were first met.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    rows: Vec<Row>,
}

impl Record {
    /// Whether a crossing with this fault has ended as it may.
    pub fn has(&self, kill: &Kill) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|row| row.is_of(kill) && row.done + row.degraded + row.rolled_back > 0)
    }

    /// Adds a crossing: its last phase and how long after the fault it ended, or none if it did
    /// not end as it may.
    pub fn note(&mut self, kill: &Kill, ended: Option<(Phase, Duration)>) {
        let known = self.rows.iter().position(|row| row.is_of(kill));
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row::of(kill));
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        match ended {
            None => row.failed += 1,
            Some((Phase::Done, _)) => row.done += 1,
            Some((Phase::Degraded, _)) => row.degraded += 1,
            Some(_) => row.rolled_back += 1,
        }
        let seconds = ended.map_or(0.0, |(_, after)| after.as_secs_f64());
        row.slowest = row.slowest.max(seconds);
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    /// # Errors
    /// When the file cannot be read, or holds no record.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| {
            let file = file.display();
            format!("read {file}; `cargo xtask soak faults` writes it")
        })?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
    }
}

/// The table, by fault and phase.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| killed, cut or silent | in phase | mode | from | done | degraded | rolled back | \
             failed | slowest end after it |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.victim, row.at, &row.mode, row.copies, &row.from));
        for row in rows {
            writeln!(
                f,
                "| {:?} | {} | {}{} | {} | {} | {} | {} | {} | {:.1} s |",
                row.victim,
                row.at,
                row.mode,
                match row.copies {
                    Copies::Plain => "",
                    Copies::Compressed => ", compressed",
                    Copies::Postcopy => ", postcopy",
                },
                row.from,
                row.done,
                row.degraded,
                row.rolled_back,
                row.failed,
                row.slowest
            )?;
        }
        let sum = |of: fn(&Row) -> u32| self.rows.iter().map(of).sum::<u32>();
        writeln!(
            f,
            "kinds of faults: {}; crossings: {} done, {} degraded, {} rolled back, {} failed",
            self.rows.len(),
            sum(|row| row.done),
            sum(|row| row.degraded),
            sum(|row| row.rolled_back),
            sum(|row| row.failed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Kill = Kill {
        from: "a",
        to: "b",
        mode: "live",
        copies: Copies::Plain,
        victim: Victim::Link,
        at: Phase::Copy,
    };

    #[test]
    fn crossings_with_the_same_fault_are_one_row_also_after_a_restart() {
        let mut record = Record::default();
        record.note(&CASE, Some((Phase::Done, Duration::from_secs(3))));
        let file = tempfile::NamedTempFile::new().expect("a file");
        record.write(file.path()).expect("it is written");
        let mut record = Record::read(file.path()).expect("it is read");
        record.note(&CASE, Some((Phase::RolledBack, Duration::from_secs(9))));
        record.note(&CASE, None);
        let said = record.to_string();
        let row = "| Link | copy | live | a | 1 | 0 | 1 | 1 | 9.0 s |";
        assert!(said.contains(row), "{said}");
        assert!(said.contains("kinds of faults: 1; crossings: 1 done, 0 degraded, 1 rolled back"));
    }

    #[test]
    fn the_way_back_is_another_crossing_and_so_is_a_compressed_one() {
        let mut record = Record::default();
        record.note(&CASE, None);
        assert!(!record.has(&CASE), "it failed");
        record.note(&CASE, Some((Phase::Done, Duration::from_secs(3))));
        let back = Kill {
            from: "b",
            to: "a",
            ..CASE
        };
        let compressed = Kill {
            copies: Copies::Compressed,
            ..CASE
        };
        assert!(record.has(&CASE) && !record.has(&back) && !record.has(&compressed));
    }
}

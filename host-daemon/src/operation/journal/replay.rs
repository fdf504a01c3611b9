//! What a journal tells: the plan, and where its events lead.

use std::path::Path;

use super::JournalError;
use super::record::{Line, Record};
use crate::operation::plan::Plan;
use crate::operation::report::Report;
use crate::operation::state::{State, next};

/// What a journal tells.
#[derive(Clone, PartialEq, Debug)]
pub struct Replayed {
    /// What was to be done.
    pub plan: Plan,
    /// Where it stands.
    pub state: State,
    /// What was measured, if it ended.
    pub report: Option<Report>,
    /// When it was last written, in milliseconds since 1970.
    pub last_ms: u64,
    /// Records in it.
    pub records: u64,
    /// Their length in the file, in bytes; what a crash cut short lies behind.
    pub bytes: u64,
}

impl Replayed {
    /// What a journal tells that holds nothing but a plan.
    pub fn start(plan: Plan) -> Self {
        let state = State::start(&plan);
        Self {
            plan,
            state,
            report: None,
            last_ms: 0,
            records: 1,
            bytes: 0,
        }
    }

    /// What it tells with another record after the plan; false for a second plan.
    pub fn follow(&mut self, record: Record) -> bool {
        match record {
            Record::Planned { .. } => return false,
            Record::Intent { .. } => {}
            Record::Outcome { event, .. } => {
                self.state = next(&self.plan, self.state.clone(), event);
            }
            Record::Ended { phase, report } => {
                self.state.phase = phase;
                self.report = Some(*report);
            }
        }
        self.records += 1;
        true
    }
}

/// Reads a journal and replays its events. `None` for a journal without a plan: the daemon ended
/// before anything was begun.
///
/// # Errors
/// [`JournalError`].
pub fn replay(path: &Path) -> Result<Option<Replayed>, JournalError> {
    let bytes = std::fs::read(path).map_err(|source| JournalError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    })?;
    replay_bytes(&bytes).map_err(|line| JournalError::Damaged {
        path: path.to_owned(),
        line,
    })
}

/// The same of what such a file holds.
///
/// # Errors
/// The number of the first damaged line, from 1.
pub fn replay_bytes(bytes: &[u8]) -> Result<Option<Replayed>, usize> {
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut replayed: Option<Replayed> = None;
    for (index, text) in lines.iter().enumerate() {
        let Some(line) = Line::whole(text).filter(|line| line.seq == index as u64) else {
            // What a crash left at the end may be anything.
            if index + 1 == lines.len() {
                break;
            }
            return Err(index + 1);
        };
        let known = match (&mut replayed, line.record) {
            (None, Record::Planned { plan }) => replayed.insert(Replayed::start(plan)),
            (Some(known), record) => known.follow(record).then_some(known).ok_or(index + 1)?,
            (None, _) => return Err(index + 1),
        };
        known.last_ms = line.at_ms;
        known.bytes += text.len() as u64;
    }
    Ok(replayed)
}

//! What can still be read of a journal that is damaged before its end. Not enough to go on with: it
//! tells whom the operation was about, and whether it was over.

use std::path::Path;

use super::record::{Line, Record};
use crate::operation::plan::Plan;

/// See the module.
pub struct Salvaged {
    /// What was to be done.
    pub plan: Option<Plan>,
    /// The operation had ended: what is damaged is history.
    pub is_over: bool,
    text: String,
}

impl Salvaged {
    /// Reads what is left; nothing, if that fails.
    pub fn read(path: &Path) -> Self {
        Self::of(&std::fs::read(path).unwrap_or_default())
    }

    /// The same of what such a file holds.
    pub fn of(bytes: &[u8]) -> Self {
        let line = |text| Line::whole(text).map(|Line { record, .. }| record);
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let plan = match lines.next().and_then(line) {
            Some(Record::Planned { plan }) => Some(plan),
            _ => None,
        };
        let is_over = matches!(lines.next_back().and_then(line), Some(Record::Ended { .. }));
        Self {
            plan,
            is_over,
            text: String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// Whether a name occurs anywhere in it.
    pub fn names(&self, name: &str) -> bool {
        self.text.contains(&format!("\"{name}\""))
    }
}

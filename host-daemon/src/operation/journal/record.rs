//! What is written, and how a line of it looks.

use serde::{Deserialize, Serialize};

use crate::operation::phase::Phase;
use crate::operation::plan::Plan;
use crate::operation::report::Report;
use crate::operation::state::Event;

/// What is written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// The first one.
    Planned {
        /// The validated plan.
        plan: Plan,
    },
    /// The effects of a phase are about to begin.
    Intent {
        /// Which.
        phase: Phase,
    },
    /// Something happened in a phase.
    Outcome {
        /// Which.
        phase: Phase,
        /// What.
        event: Event,
    },
    /// The last one.
    Ended {
        /// A terminal phase.
        phase: Phase,
        /// What was measured.
        report: Box<Report>,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub seq: u64,
    pub at_ms: u64,
    #[serde(flatten)]
    pub record: Record,
}

impl Line {
    /// As it stands in the file.
    pub fn text(&self) -> String {
        let json = serde_json::to_string(self).expect("invariant: records are plain data");
        format!("{} {json}\n", checksum(&json))
    }

    /// A line as it was written, wherever it stands.
    pub fn whole(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let (crc, json) = text.strip_suffix('\n')?.split_once(' ')?;
        if crc != checksum(json) {
            return None;
        }
        serde_json::from_str(json).ok()
    }
}

fn checksum(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}

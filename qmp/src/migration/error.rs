//! How a migration ends badly.

use std::time::Duration;

use super::Status;
use crate::error::Error;

/// A migration that was not carried out, or whose end is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MigrateError {
    /// Something in the machine cannot be migrated, for example an attached VFIO device. Nothing
    /// was started.
    #[error("migration is blocked: {}", reasons.join("; "))]
    Blocked {
        /// QEMU's words, one for each blocker.
        reasons: Vec<String>,
    },
    /// QEMU refused a step, or the connection ended. After a lost connection the migration may
    /// still be running.
    #[error("{step} of migration {with}")]
    Command {
        /// For example `start`.
        step: &'static str,
        /// The other end.
        with: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// It failed. A source runs on as before.
    #[error("migration {with} failed: {reason}")]
    Failed {
        /// The other end.
        with: String,
        /// QEMU's words.
        reason: String,
    },
    /// It was cancelled; the source runs on as before.
    #[error("migration {with} was cancelled")]
    Cancelled {
        /// The other end.
        with: String,
    },
    /// It is still going on.
    #[error("migration {with} is still {status:?} after {limit:?}")]
    Timeout {
        /// The other end.
        with: String,
        /// Where it stands.
        status: Status,
        /// How long we waited.
        limit: Duration,
    },
}

//! Why the bed could not be put up, or a guest does not do what was asked.

use std::path::PathBuf;
use std::time::Duration;

use super::ledger::LedgerError;
use super::requirements;
use crate::command::CommandError;
use crate::image::ImageError;
use crate::lab_dir::LabDirError;

/// Why the bed could not be put up, or a guest does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine does not allow it; nothing was changed.
    #[error("{0}; nothing was changed")]
    Unfit(#[from] requirements::Requirement),
    /// No image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The lab's directory.
    #[error(transparent)]
    LabDir(#[from] LabDirError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] CommandError),
    /// A file.
    #[error("{what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A daemon does not answer.
    #[error("symvirtd of host {host} does not answer: {error}\n{log}")]
    Daemon {
        /// The host.
        host: &'static str,
        /// What its client said.
        error: String,
        /// The end of its log.
        log: String,
    },
    /// A guest's template could not be made.
    #[error("make the template of guest {guest}: {reason}")]
    Template {
        /// The guest.
        guest: String,
        /// Why.
        reason: String,
    },
    /// A VM outside of the daemons does not do what was asked.
    #[error("VM {vm}, run by QEMU alone: {reason}")]
    Bare {
        /// The VM.
        vm: String,
        /// Why.
        reason: String,
    },
    /// The daemon did not begin, or did not end, an operation.
    #[error("symvirt migrate (exit {exit:?}): {said}")]
    Refused {
        /// Exit status.
        exit: Option<i32>,
        /// What it said.
        said: String,
    },
    /// A guest does not answer.
    #[error("guest {guest}: `{script}` does not succeed within {limit:?}: {last}")]
    Silent {
        /// The guest.
        guest: String,
        /// What was tried.
        script: String,
        /// For how long.
        limit: Duration,
        /// What it said last.
        last: String,
    },
}

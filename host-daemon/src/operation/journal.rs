//! The journal of one operation: a file of lines, each a record that was on disk before the
//! next effect began.
//!
//! ```text
//!   1f2e3d4c {"seq":0,"at_ms":…,"record":"planned","plan":{…}}
//!   └ crc32 of the rest of the line
//! ```
//!
//! Room for the whole journal is taken when it begins: a disk that fills up under an operation
//! stops the next one, not this. A record is appended and fsynced before [`Journal::append`]
//! returns. A line that a crash cut short is the last one and is ignored on reading; a damaged line
//! before others is an error, because what follows it cannot be trusted.
//!
//! | module | holds |
//! |---|---|
//! | [`record`] | what is written, and how a line looks |
//! | [`replay`] | where a journal's events lead |
//! | [`salvage`] | what can be read of a damaged one |

mod record;
mod replay;
mod salvage;

pub use record::Record;
pub use replay::{Replayed, replay, replay_bytes};
pub use salvage::Salvaged;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::plan::{OperationId, Plan};
use record::Line;

/// Bytes that the journal of an operation without VMs may need: some sixty records, with reasons.
const ROOM: i64 = 128 << 10;
/// The same for each VM: its plan, its part of the report, its fate.
const ROOM_PER_VM: i64 = 8 << 10;

/// Why the journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refuses.
    #[error("{verb} journal {path}", path = path.display())]
    Io {
        /// Create, append to, read.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record in the middle is not what was written.
    #[error("journal {path}, line {line}: damaged record", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    seq: u64,
}

/// File of an operation's journal.
pub fn path_of(directory: &Path, id: &OperationId) -> PathBuf {
    directory.join(format!("{id}.journal"))
}

impl Journal {
    /// Begins the journal of `plan` in `directory`.
    ///
    /// # Errors
    /// [`JournalError::Io`]; also if the operation has a journal already.
    pub fn create(directory: &Path, plan: &Plan, at_ms: u64) -> Result<Self, JournalError> {
        let path = path_of(directory, &plan.id);
        let wrap = |source| JournalError::Io {
            verb: "create",
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(wrap)?;
        let begun = reserve(&file, plan).and_then(|()| {
            // The file's name has to survive a crash too.
            File::open(directory)?.sync_all()
        });
        if let Err(error) = begun {
            // It holds nothing; if it stays, nothing reads anything into it.
            std::fs::remove_file(&path).ok();
            return Err(wrap(error));
        }
        let mut journal = Self {
            path: path.clone(),
            file,
            seq: 0,
        };
        journal.append(Record::Planned { plan: plan.clone() }, at_ms)?;
        Ok(journal)
    }

    /// Opens an existing journal to go on with it. A record that a crash cut short is cut off.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn reopen(directory: &Path, replayed: &Replayed) -> Result<Self, JournalError> {
        let path = path_of(directory, &replayed.plan.id);
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_len(replayed.bytes).map(|()| file))
            .map_err(|source| JournalError::Io {
                verb: "open",
                path: path.clone(),
                source,
            })?;
        if let Err(error) = reserve(&file, &replayed.plan) {
            tracing::warn!(path = %path.display(), %error, "no room taken for the rest of a journal");
        }
        Ok(Self {
            path,
            file,
            seq: replayed.records,
        })
    }

    /// Writes a record and waits until it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the record may or may not be in the file.
    pub fn append(&mut self, record: Record, at_ms: u64) -> Result<(), JournalError> {
        let line = Line {
            seq: self.seq,
            at_ms,
            record,
        };
        self.file
            .write_all(line.text().as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| JournalError::Io {
                verb: "append to",
                path: self.path.clone(),
                source,
            })?;
        self.seq += 1;
        Ok(())
    }
}

/// Takes blocks on the disk without making the file longer, where the file system can.
fn reserve(file: &File, plan: &Plan) -> std::io::Result<()> {
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};
    let room = ROOM + ROOM_PER_VM * i64::try_from(plan.vms.len()).unwrap_or(0);
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, room) {
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;

//! The journal of one operation: a file of lines, each a record that was on disk before the
//! next effect began.
//!
//! ```text
//!   1f2e3d4c {"seq":0,"at_ms":…,"record":"planned","plan":{…}}
//!   └ crc32 of the rest of the line
//! ```
//!
//! Room for the whole journal is taken when it begins: a disk that fills up under an operation
//! stops the next one, not this. A record is appended and fsynced before [`Journal::append`] returns. A line that a crash cut
//! short is the last one and is ignored on reading; a damaged line before others is an error,
//! because what follows it cannot be trusted.

mod salvage;

pub use salvage::Salvaged;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::plan::{OperationId, Plan};
use super::report::Report;
use super::state::{Event, State, next};

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
struct Line {
    seq: u64,
    at_ms: u64,
    #[serde(flatten)]
    record: Record,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    seq: u64,
}

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

/// File of an operation's journal.
pub fn path_of(directory: &Path, id: &OperationId) -> PathBuf {
    directory.join(format!("{id}.journal"))
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
        let json = serde_json::to_string(&line).expect("invariant: records are plain data");
        let text = format!("{} {json}\n", checksum(&json));
        self.file
            .write_all(text.as_bytes())
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
        let Some(line) = whole(text).filter(|line| line.seq == index as u64) else {
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

/// A line as it was written, wherever it stands.
fn whole(text: &[u8]) -> Option<Line> {
    let text = str::from_utf8(text).ok()?;
    let (crc, json) = text.strip_suffix('\n')?.split_once(' ')?;
    if crc != checksum(json) {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn checksum(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::plan::{Limits, Request};
    use crate::operation::report::PhaseTime;

    fn plan() -> Plan {
        Plan {
            id: OperationId::nth(&"a".parse().unwrap(), 3),
            request: Request::Migrate {
                gang: "job".parse().unwrap(),
                to: "b".parse().unwrap(),
                mode: crate::operation::plan::Mode::Live,
                limits: Limits::default(),
            },
            vms: vec![],
            ranks: false,
            interconnect: crate::operation::plan::Target::Native,
            planned_ms: 5,
        }
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan();
        let mut journal = Journal::create(dir.path(), &plan, 5).unwrap();
        journal
            .append(
                Record::Intent {
                    phase: Phase::Prepare,
                },
                6,
            )
            .unwrap();
        let outcome = Record::Outcome {
            phase: Phase::Prepare,
            event: Event::Completed,
        };
        journal.append(outcome, 7).unwrap();
        let path = path_of(dir.path(), &plan.id);
        (dir, path)
    }

    #[test]
    fn replay_reaches_the_state_that_was_journalled() {
        let (_dir, path) = written();
        let replayed = replay(&path).unwrap().unwrap();
        assert_eq!(replayed.state.phase, Phase::Copy);
        assert_eq!(replayed.plan, plan());
        assert_eq!((replayed.last_ms, replayed.records), (7, 3));
    }

    #[test]
    fn a_record_that_a_crash_cut_short_is_as_if_never_written() {
        let (_dir, path) = written();
        let text = std::fs::read_to_string(&path).unwrap();
        for cut in 1..60 {
            std::fs::write(&path, &text[..text.len() - cut]).unwrap();
            let replayed = replay(&path).unwrap().unwrap();
            assert_eq!(replayed.state.phase, Phase::Prepare);
        }
    }

    #[test]
    fn a_journal_that_was_cut_short_is_gone_on_with_and_read_again() {
        let (dir, path) = written();
        let text = std::fs::read_to_string(&path).unwrap();
        for cut in [1, 5, 40] {
            std::fs::write(&path, &text[..text.len() - cut]).unwrap();
            let replayed = replay(&path).unwrap().unwrap();
            let mut journal = Journal::reopen(dir.path(), &replayed).unwrap();
            let phase = Phase::Copy;
            journal.append(Record::Intent { phase }, 8).unwrap();
            let again = replay(&path).unwrap().unwrap();
            assert_eq!((again.records, again.last_ms), (replayed.records + 1, 8));
        }
    }

    #[test]
    fn a_damaged_record_before_others_is_an_error_with_its_line() {
        let (_dir, path) = written();
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replacen("intent", "jntent", 1);
        std::fs::write(&path, text).unwrap();
        assert!(matches!(
            replay(&path),
            Err(JournalError::Damaged { line: 2, .. })
        ));
    }

    #[test]
    fn a_checksum_that_was_written_otherwise_is_damage() {
        let (_dir, path) = written();
        let text = std::fs::read_to_string(&path).unwrap();
        let (crc, rest) = text.split_once(' ').unwrap();
        for crc in [format!("0{crc}"), format!("+{crc}"), crc.to_uppercase()] {
            let changed = format!("{crc} {rest}");
            let expected = if changed == text { Ok(3) } else { Err(1) };
            let told = replay_bytes(changed.as_bytes());
            assert_eq!(
                told.map(|told| told.map_or(0, |told| told.records)),
                expected
            );
        }
    }

    #[test]
    fn what_was_measured_is_read_as_it_was_written() {
        let (dir, path) = written();
        let replayed = replay(&path).unwrap().unwrap();
        let mut journal = Journal::reopen(dir.path(), &replayed).unwrap();
        // Numbers whose shortest text a quick reader takes for their neighbour.
        let phases = (1..100_u64).map(|n| PhaseTime {
            phase: Phase::Copy,
            began_ms: n,
            took_ms: 1e23 / n as f64,
        });
        let report = Box::new(Report {
            phases: phases.collect(),
            ..Report::default()
        });
        let (phase, expected) = (Phase::Done, report.clone());
        journal.append(Record::Ended { phase, report }, 9).unwrap();
        let told = replay(&path).unwrap().unwrap().report;
        assert!(told == Some(*expected), "another number");
    }

    #[test]
    fn a_disk_that_fills_up_under_a_journal_does_not_stop_it() {
        // A file system of its own, in a mount namespace of this thread.
        let separate = std::thread::spawn(|| {
            use nix::mount::{MsFlags, mount};
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let small = Some("size=1m");
            mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), small).unwrap();
            let mut journal = Journal::create(dir.path(), &plan(), 5).unwrap();
            let fill = |name| std::fs::write(dir.path().join(name), vec![0; 2 << 20]);
            assert!(fill("full").is_err(), "the disk is not full");
            for at_ms in 0..100 {
                let phase = Phase::Prepare;
                journal.append(Record::Intent { phase }, at_ms).unwrap();
            }
            let mut next = plan();
            next.id = OperationId::nth(&"a".parse().unwrap(), 4);
            let refused = Journal::create(dir.path(), &next, 5);
            assert!(matches!(refused, Err(JournalError::Io { .. })));
            assert!(!path_of(dir.path(), &next.id).exists());
            drop(journal);
            nix::mount::umount(dir.path()).unwrap();
        });
        separate.join().unwrap();
    }
}

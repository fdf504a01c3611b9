//! What a test bed has made on this machine, and its removal.
//!
//! ```text
//!  /run/symvirt-bed-<id>/ledger.json   written before anything is made
//!  bed-<id>-a, bed-<id>-b              network namespaces: every process, tap, bridge is in one
//! ```
//!
//! Everything that runs runs in a namespace of the bed, so that removal needs no list of
//! processes: whatever is in the namespaces is killed, by process id. A bed whose owner has died
//! is removed by the next one ([`sweep`]). Creation and removal exclude each other: after
//! [`Ledger::close`], also by a signal, nothing can be made any more.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::command::{self, CommandError};

const RUN: &str = "/run";
const PREFIX: &str = "symvirt-bed-";
/// Bounds the wait for killed processes.
const GONE: Duration = Duration::from_secs(10);

/// Why something could not be made, or recorded.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger cannot be written or read.
    #[error("{what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bed is being taken down.
    #[error("the test bed is being taken down")]
    Closed,
    /// A program failed.
    #[error(transparent)]
    Program(#[from] CommandError),
}

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Entries {
    id: String,
    /// Process id and start time of the owner; none if the bed is to outlive it.
    owner: Option<(i32, u64)>,
    namespaces: Vec<String>,
}

#[derive(Debug)]
struct State {
    entries: Entries,
    closed: bool,
}

/// What one bed has made; clones are the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Ledger {
    /// Opens a ledger for a bed of this process.
    ///
    /// # Errors
    /// [`LedgerError::File`].
    pub fn create() -> Result<Self, LedgerError> {
        let pid = nix::unistd::getpid().as_raw();
        let id = pid.to_string();
        let directory = Path::new(RUN).join(format!("{PREFIX}{id}"));
        std::fs::create_dir_all(&directory).map_err(file("make", &directory))?;
        let ledger = Self {
            directory,
            state: Arc::new(Mutex::new(State {
                entries: Entries {
                    id,
                    owner: Some((pid, start_time(pid).unwrap_or(0))),
                    namespaces: Vec::new(),
                },
                closed: false,
            })),
        };
        ledger.write(&ledger.lock().entries)?;
        Ok(ledger)
    }

    /// Directory of the run: configurations, sockets, logs. Removed with the bed.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Part of every name that the bed gives.
    pub fn id(&self) -> String {
        self.lock().entries.id.clone()
    }

    /// Makes a network namespace `bed-<id>-<host>` and returns its name.
    ///
    /// # Errors
    /// [`LedgerError`]; what was made is recorded.
    pub fn namespace(&self, host: &str) -> Result<String, LedgerError> {
        let mut state = self.lock();
        if state.closed {
            return Err(LedgerError::Closed);
        }
        let name = format!("bed-{}-{host}", state.entries.id);
        state.entries.namespaces.push(name.clone());
        self.write(&state.entries)?;
        command::run("ip", ["netns", "add", &name])?;
        Ok(name)
    }

    /// Does what makes a process or a device, unless the bed is being taken down.
    ///
    /// # Errors
    /// [`LedgerError::Closed`], and those of `make`.
    pub fn making<T, E: From<LedgerError>>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let state = self.lock();
        if state.closed {
            return Err(LedgerError::Closed.into());
        }
        make()
    }

    /// Lets the bed outlive this process; [`remove_all`] ends it.
    ///
    /// # Errors
    /// [`LedgerError::File`].
    pub fn disown(&self) -> Result<(), LedgerError> {
        let mut state = self.lock();
        state.entries.owner = None;
        state.closed = true;
        self.write(&state.entries)
    }

    /// Removes everything; a second call does nothing.
    ///
    /// # Errors
    /// The first failure; the rest was tried all the same.
    pub fn close(&self) -> Result<(), LedgerError> {
        let mut state = self.lock();
        if state.closed {
            return Ok(());
        }
        state.closed = true;
        remove(&state.entries, &self.directory)
    }

    /// What is still there of the bed. Empty after a successful [`Ledger::close`].
    pub fn left_behind(&self) -> Vec<String> {
        let state = self.lock();
        let mut left = Vec::new();
        for name in &state.entries.namespaces {
            if Path::new("/run/netns").join(name).exists() {
                left.push(format!("namespace {name}"));
            }
        }
        let directory = self.directory.to_string_lossy().into_owned();
        if self.directory.exists() {
            left.push(format!("directory {directory}"));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let marks = [directory.clone(), format!("/bed-{}-", state.entries.id)];
        left.extend(
            mounts
                .lines()
                .filter(|line| marks.iter().any(|mark| line.contains(mark)))
                .map(|line| format!("mount {line}")),
        );
        let own = nix::unistd::getpid().as_raw();
        for pid in processes().filter(|pid| *pid != own) {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if marks.iter().any(|mark| words.contains(mark)) {
                left.push(format!("process {pid} {words}"));
            }
        }
        left
    }

    fn write(&self, entries: &Entries) -> Result<(), LedgerError> {
        let path = self.directory.join("ledger.json");
        let text = serde_json::to_vec(entries).expect("invariant: entries are plain data");
        std::fs::write(&path, text).map_err(file("write", &path))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes beds whose owner has died without doing so; returns their number.
///
/// # Errors
/// The first failure; the other beds were tried all the same.
pub fn sweep() -> Result<usize, LedgerError> {
    remove_where(|entries| {
        entries
            .owner
            .is_some_and(|(pid, start)| start_time(pid) != Some(start))
    })
}

/// Removes every bed that was left up on purpose, and those of [`sweep`].
///
/// # Errors
/// As [`sweep`].
pub fn remove_all() -> Result<usize, LedgerError> {
    let kept = remove_where(|entries| entries.owner.is_none())?;
    Ok(kept + sweep()?)
}

/// Directory and namespaces of the bed that was left up on purpose, if there is one.
pub fn kept() -> Option<(PathBuf, Vec<String>)> {
    let mut all = read_all().into_iter();
    let (entries, directory) = all.find(|(entries, _)| entries.owner.is_none())?;
    Some((directory, entries.namespaces))
}

fn remove_where(dead: impl Fn(&Entries) -> bool) -> Result<usize, LedgerError> {
    let mut removed = 0;
    let mut result = Ok(());
    for (entries, directory) in read_all() {
        if dead(&entries) {
            result = result.and(remove(&entries, &directory));
            removed += 1;
        }
    }
    result.map(|()| removed)
}

fn read_all() -> Vec<(Entries, PathBuf)> {
    let listed = std::fs::read_dir(RUN).into_iter().flatten().flatten();
    let beds = listed.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    beds.filter_map(|entry| {
        let directory = entry.path();
        let text = std::fs::read(directory.join("ledger.json")).ok()?;
        Some((serde_json::from_slice(&text).ok()?, directory))
    })
    .collect()
}

fn remove(entries: &Entries, directory: &Path) -> Result<(), LedgerError> {
    let mut result = Ok(());
    for name in &entries.namespaces {
        if !Path::new("/run/netns").join(name).exists() {
            continue;
        }
        let removed = kill_all_in(name).and_then(|()| {
            ip_netns("delete", name)?;
            Ok(())
        });
        result = result.and(removed);
    }
    // Who comes next must find what could not be removed.
    if result.is_ok() && directory.exists() {
        result = std::fs::remove_dir_all(directory).map_err(file("remove", directory));
    }
    result
}

/// A second Ctrl-C at the terminal is not this program's: the removal must go on.
fn ip_netns(verb: &str, namespace: &str) -> Result<String, CommandError> {
    let mut command = Command::new("ip");
    command.args(["netns", verb, namespace]).process_group(0);
    command::output(&mut command)
}

fn kill_all_in(namespace: &str) -> Result<(), LedgerError> {
    let deadline = Instant::now() + GONE;
    loop {
        let pids = ip_netns("pids", namespace)?;
        let pids: Vec<i32> = pids.split_whitespace().flat_map(str::parse).collect();
        if pids.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        for pid in pids {
            // ESRCH: it has just ended.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    listed.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
}

/// When a process began, in clock ticks since boot: with the process id, its identity.
fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may contain anything; fields are counted behind its parenthesis.
    let fields = text.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::File { what, path, source }
}

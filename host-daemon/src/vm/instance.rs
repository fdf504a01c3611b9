//! What is recorded of an instance, and where its files are.
//!
//! ```text
//!   STATE_DIR/vms/vm1.0badcafe/     mode 0700
//!     record.json     this module; replaced as a whole, synced
//!     monitor         QMP, one client at a time: the daemon
//!     channel         guest channel, likewise
//!     pid             written by QEMU
//!     qemu.log        what QEMU prints
//!     console.log     the guest's serial console
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use symvirt_qmp::{Client, commands};

use super::hca::Plugged;
use super::process::ProcessIdentity;
use super::tap::TapName;
use crate::config::{VmName, VmSpec};
use crate::kept;

/// How long QEMU may take to greet on a monitor that nobody else holds.
const MONITOR_LIMIT: Duration = Duration::from_secs(30);

/// How long QEMU may take to answer `quit`.
const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// One QEMU of one VM, random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(u32);

impl InstanceId {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(u32::from_le_bytes(bytes)))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Not the name of an instance.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not an instance: expected 8 hexadecimal digits")]
pub struct NotAnInstance(String);

impl FromStr for InstanceId {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        let digits = Some(text).filter(|text| text.len() == 8);
        let id = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        id.map(Self).ok_or_else(|| NotAnInstance(text.to_owned()))
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NotAnInstance;

    fn try_from(text: String) -> Result<Self, NotAnInstance> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

/// Where an instance has its state from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The kernel booted.
    Boot,
    /// The template of its specification.
    Template,
    /// A migration from another QEMU.
    Incoming,
}

/// The files of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// Those in `directory`.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// All of them are here.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Socket of the monitor.
    pub fn monitor(&self) -> PathBuf {
        self.directory.join("monitor")
    }

    /// Socket of the guest channel; QEMU listens.
    pub fn channel(&self) -> PathBuf {
        self.directory.join("channel")
    }

    /// The guest's serial console.
    pub fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// What QEMU prints.
    pub fn log(&self) -> PathBuf {
        self.directory.join("qemu.log")
    }

    /// Written by QEMU.
    pub fn pid_file(&self) -> PathBuf {
        self.directory.join("pid")
    }

    pub(super) fn record(&self) -> PathBuf {
        self.directory.join("record.json")
    }

    /// The last lines that QEMU printed, for an error.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

/// What must not be forgotten of an instance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Which.
    pub id: InstanceId,
    /// What it was made from.
    pub spec: VmSpec,
    /// Where it has its state from.
    pub origin: Origin,
    /// The taps of its network devices, in order.
    pub taps: Vec<TapName>,
    /// Its QEMU, once started.
    pub process: Option<ProcessIdentity>,
    /// What is plugged, or was about to be plugged or unplugged.
    pub hca: Option<Plugged>,
}

/// Why an instance could not be read, kept, or ended.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Its record cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its record cannot be written.
    #[error("write {path}", path = path.display())]
    Write {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its process cannot be looked at or signalled.
    #[error("process {pid} of vm {vm}")]
    Process {
        /// Which VM.
        vm: VmName,
        /// Id of the process.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its process does not end, not even when killed.
    #[error("process {pid} of vm {vm} does not end")]
    Stuck {
        /// Which VM.
        vm: VmName,
        /// Id of the process.
        pid: i32,
    },
}

/// One QEMU of one VM.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    /// Its files.
    pub files: Files,
    /// Its record, as last written.
    record: Record,
}

impl Instance {
    pub(super) fn new(files: Files, record: Record) -> Self {
        Self { files, record }
    }

    /// Reads the record in `directory`. A QEMU that was started by a daemon which then died
    /// before it wrote that down is found by its pid file.
    pub(super) fn load(directory: PathBuf) -> Result<Self, InstanceError> {
        let files = Files::in_directory(directory);
        let path = files.record();
        let failed = |source| InstanceError::Read {
            path: path.clone(),
            source,
        };
        let bytes = fs::read(&path).map_err(failed)?;
        let mut record: Record =
            serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
        if record.process.is_none() {
            record.process = process_by_pid_file(&files).map_err(failed)?;
        }
        Ok(Self { files, record })
    }

    /// The VM's name.
    pub fn vm(&self) -> &VmName {
        &self.record.spec.name
    }

    /// Which instance of the VM.
    pub fn id(&self) -> InstanceId {
        self.record.id
    }

    /// What is recorded.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record, on disk before in memory.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), InstanceError> {
        let mut record = self.record.clone();
        change(&mut record);
        write(&self.files.record(), &record)?;
        self.record = record;
        Ok(())
    }

    /// Whether its QEMU is there.
    ///
    /// # Errors
    /// [`InstanceError::Process`].
    pub fn is_alive(&self) -> Result<bool, InstanceError> {
        match &self.record.process {
            None => Ok(false),
            Some(process) => process
                .is_alive()
                .map_err(|source| self.process_error(process, source)),
        }
    }

    /// Connects to its monitor, which takes one client at a time.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    pub async fn connect(&self) -> Result<Client, symvirt_qmp::Error> {
        Client::connect(self.files.monitor(), MONITOR_LIMIT).await
    }

    /// Ends its QEMU: over the monitor if `monitor` is given, then by SIGTERM, then by SIGKILL,
    /// each within `grace`. Nothing happens if it has ended. Cancel-safe: call it again.
    ///
    /// # Errors
    /// [`InstanceError::Process`], [`InstanceError::Stuck`].
    pub async fn stop(
        &self,
        monitor: Option<&Client>,
        grace: Duration,
    ) -> Result<(), InstanceError> {
        let Some(process) = &self.record.process else {
            return Ok(());
        };
        let failed = |source| self.process_error(process, source);
        if let Some(monitor) = monitor {
            let quit = monitor.execute_within(commands::quit {}, QUIT_LIMIT).await;
            // An end of the connection is the usual answer; otherwise the signals follow.
            if let Err(error) = quit {
                tracing::debug!(vm = %self.vm(), %error, "quit");
            }
            if process.ended_within(grace).await.map_err(failed)? {
                return Ok(());
            }
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            process.signal(signal).map_err(failed)?;
            if process.ended_within(grace).await.map_err(failed)? {
                return Ok(());
            }
            tracing::warn!(vm = %self.vm(), pid = process.pid, %signal, "QEMU does not end");
        }
        Err(InstanceError::Stuck {
            vm: self.vm().clone(),
            pid: process.pid,
        })
    }

    fn process_error(&self, process: &ProcessIdentity, source: io::Error) -> InstanceError {
        InstanceError::Process {
            vm: self.vm().clone(),
            pid: process.pid,
            source,
        }
    }
}

fn process_by_pid_file(files: &Files) -> io::Result<Option<ProcessIdentity>> {
    let Ok(text) = fs::read_to_string(files.pid_file()) else {
        return Ok(None);
    };
    let Ok(pid) = text.trim().parse() else {
        return Ok(None);
    };
    let process = ProcessIdentity::of(pid)?;
    // The path of the monitor is unique to the instance.
    let monitor = files.monitor().to_string_lossy().replace(',', ",,");
    Ok(process.filter(|process| process.has_argument(&monitor)))
}

/// Writes a record so that a crash leaves the old one or the new one.
pub(super) fn write(path: &Path, record: &Record) -> Result<(), InstanceError> {
    kept::replace(path, record).map_err(|source| InstanceError::Write {
        path: path.to_owned(),
        source,
    })
}

//! A job under `symvirt-guest rehearse`: its transport is switched while it runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;

use crate::job::{self, Outcome};
use crate::{apps, built};

/// What `rehearse --json` writes, as far as tests and benchmarks read it.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// The job ended well, was switched, and lost no rank.
    pub passed: bool,
    /// Switches that took effect.
    pub switches: u64,
    /// Reasons of switches that were abandoned without effect.
    pub abandoned: Vec<String>,
    /// Reasons of switches that could not be undone.
    pub failed: Vec<String>,
    /// Ranks that died.
    pub ranks_lost: Vec<String>,
    /// Where the time went, by order.
    pub orders: Vec<Times>,
}

/// Distributions over the switches of one order.
#[derive(Clone, Debug, Deserialize)]
pub struct Times {
    /// `make-before-break` or `break-before-make`
    pub order: String,
    /// Switches of this order.
    pub switches: u64,
    /// Per switch, the longest stall of any rank.
    pub job_stall_us: Spread,
    /// Per rank and switch: until no thread was inside UCX.
    pub gate_us: Spread,
    /// Until the totals had arrived.
    pub counters_us: Spread,
    /// Until everything expected had arrived.
    pub drain_us: Spread,
    /// Cancelling and re-posting receives, swapping.
    pub repost_us: Spread,
    /// The most bytes that one rank kept for later receives at a time.
    pub spool_peak: u64,
    /// Bytes drained into the library's memory, over all switches.
    pub drained_bytes: u64,
}

/// Of microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Spread {
    /// Half of the values are not above.
    pub median: u64,
    /// 99 of 100 are not above.
    pub p99: u64,
    /// None is above.
    pub max: u64,
}

impl Report {
    /// The times of one order, if any switch had it.
    pub fn order(&self, name: &str) -> Option<&Times> {
        self.orders.iter().find(|times| times.order == name)
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The program could not be run.
    #[error("run {}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The rehearsal ended without a report.
    #[error("no report: {0}")]
    NoReport(String),
    /// The report is not what this code reads.
    #[error("read the report {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A rehearsal to be run.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    every: Duration,
    over: String,
    order: String,
    switches: Option<u64>,
    round_timeout: Duration,
    cancel_every: Option<u64>,
}

impl Default for Rehearsal {
    fn default() -> Self {
        Rehearsal {
            every: Duration::from_millis(50),
            over: "tcp,shm".to_owned(),
            order: "both".to_owned(),
            switches: None,
            // Our own limit is to come first: it takes backtraces of what hangs.
            round_timeout: Duration::from_secs(600),
            cancel_every: None,
        }
    }
}

impl Rehearsal {
    /// Time from the start of one switch to the start of the next.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// The transports, as `--over` takes them.
    pub fn over(mut self, over: &str) -> Self {
        over.clone_into(&mut self.over);
        self
    }

    /// `mbb`, `bbm` or `both`.
    pub fn order(mut self, order: &str) -> Self {
        order.clone_into(&mut self.order);
        self
    }

    /// Longest wait for the ranks in one phase of a switch.
    pub fn round_timeout(mut self, limit: Duration) -> Self {
        self.round_timeout = limit;
        self
    }

    /// At most so many switches; 0 gives a job that is a member of a gang and never switched.
    pub fn switches(mut self, switches: u64) -> Self {
        self.switches = Some(switches);
        self
    }

    /// Every `count`th switch is cancelled, each a millisecond later than the one before.
    pub fn cancel_every(mut self, count: u64) -> Self {
        self.cancel_every = Some(count);
        self
    }

    /// Runs `job` for at most `limit`.
    ///
    /// # Errors
    /// When the rehearsal could not run or left no report. A job that failed is no error: see the
    /// outcome.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        job: impl IntoIterator<Item = A>,
        limit: Duration,
    ) -> Result<(Outcome, Report), RehearsalError> {
        let release = built::release();
        let file = report_file();
        let mut command = Command::new(&release.guest);
        command
            .env("SYMVIRT_LIB", &release.library)
            .env("UCX_LOG_LEVEL", "error");
        let every = format!("{}us", self.every.as_micros());
        command.args([
            "rehearse",
            "--every",
            &every,
            "--over",
            &self.over,
            "--order",
            &self.order,
        ]);
        let patience = format!("{}ms", self.round_timeout.as_millis());
        command.args(["--round-timeout", &patience]);
        if let Some(switches) = self.switches {
            command.args(["--switches", &switches.to_string()]);
        }
        if let Some(count) = self.cancel_every {
            command.args(["--cancel-every", &count.to_string()]);
        }
        command.arg("--json").arg(&file).arg("--").args(job);
        let outcome = job::run(&mut command, limit).map_err(|source| RehearsalError::Start {
            program: release.guest.clone(),
            source,
        })?;
        let text = std::fs::read_to_string(&file)
            .map_err(|_| RehearsalError::NoReport(outcome.describe()))?;
        // Best effort: a left-over report disturbs nobody.
        std::fs::remove_file(&file).ok();
        let report = serde_json::from_str(&text)
            .map_err(|source| RehearsalError::Unreadable { file, source })?;
        Ok((outcome, report))
    }
}

fn report_file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("symvirt-report-{}-{number}.json", std::process::id());
    std::env::temp_dir().join(name)
}

/// `mpirun` for `ranks` ranks of a program of `tests/apps` on this machine, with all point-to-point
/// traffic over UCX. `environment` is handed to the ranks.
pub fn mpirun(
    ranks: u32,
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Vec<String> {
    let mut words = own(&["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe"]);
    for (name, value) in [
        ("pml", "ucx"),
        ("pml_ucx_tls", "any"),
        ("pml_ucx_devices", "any"),
        ("osc", "ucx"),
        ("btl", "^uct,openib,ofi"),
    ] {
        words.extend(own(&["--mca", name, value]));
    }
    for (name, value) in environment {
        words.extend(own(&["-x", &format!("{name}={value}")]));
    }
    words.extend(own(&["-n", &ranks.to_string()]));
    words.push(path_text(&apps::program(program)));
    words.extend(own(arguments));
    words
}

/// As [`mpirun`], by MPICH: all traffic goes over UCX, because every rank believes it has a machine
/// of its own; otherwise ranks of one machine use MPICH's own shared memory.
pub fn mpirun_mpich(ranks: u32, program: &str, arguments: &[&str]) -> Vec<String> {
    let mut words = own(&["mpirun.mpich", "-genv", "MPIR_CVAR_NOLOCAL", "1"]);
    words.extend(own(&["-n", &ranks.to_string()]));
    words.push(path_text(&apps::program(&format!("mpich/{program}"))));
    words.extend(own(arguments));
    words
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

//! A job under `symvirt-guest rehearse`: its transport is switched while it runs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::built;
use crate::job::{self, Outcome};
use crate::mpi::Mpi;
use crate::place::Place;

/// What `rehearse --json` writes, as far as tests and benchmarks read it.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// The job ended well, was switched, and lost no rank.
    pub passed: bool,
    /// The job's own exit code; none if a signal ended it.
    pub job_exit_code: Option<i32>,
    /// Switches that took effect.
    pub switches: u64,
    /// Reasons of switches that were abandoned without effect.
    pub abandoned: Vec<String>,
    /// Reasons of switches that could not be undone.
    pub failed: Vec<String>,
    /// Ranks that died.
    pub ranks_lost: Vec<String>,
    /// How often the coordinator was replaced in the middle of a switch.
    pub forgotten: u64,
    /// How often the agent was.
    pub agents_lost: u64,
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
    /// Per switch: until the new transport was ready.
    pub prepare_us: Spread,
    /// Per switch: the slowest rank's release of the old transport.
    pub release_us: Spread,
    /// Per switch, out of band: frames on the sockets of all ranks together.
    pub rank_frames: Spread,
    /// Their bytes.
    pub rank_bytes: Spread,
    /// Per switch, out of band: frames between agent and coordinator.
    pub guest_frames: Spread,
    /// Their bytes.
    pub guest_bytes: Spread,
    /// The most bytes that one rank kept for later receives at a time.
    pub spool_peak: u64,
    /// Bytes drained into the library's memory, over all switches.
    pub drained_bytes: u64,
}

/// Of microseconds, frames or bytes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
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
    every: String,
    over: Vec<String>,
    order: String,
    switches: Option<u64>,
    round_timeout: Duration,
    cancel_every: Option<u64>,
    forget_every: Option<u64>,
    lose_agent_every: Option<u64>,
    duration: Option<Duration>,
    slow: u8,
    place: Place,
}

impl Default for Rehearsal {
    fn default() -> Self {
        Rehearsal {
            every: "50ms".to_owned(),
            over: vec!["tcp,shm".to_owned()],
            order: "both".to_owned(),
            switches: None,
            // Our own limit is to come first: it takes backtraces of what hangs.
            round_timeout: Duration::from_secs(600),
            cancel_every: None,
            forget_every: None,
            lose_agent_every: None,
            duration: None,
            slow: 0,
            place: Place::Machine,
        }
    }
}

impl Rehearsal {
    /// Time from the start of one switch to the start of the next.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = format!("{}us", every.as_micros());
        self
    }

    /// As [`Self::every`], at random between two times.
    pub fn between(mut self, shortest: Duration, longest: Duration) -> Self {
        self.every = format!("{}us..{}us", shortest.as_micros(), longest.as_micros());
        self
    }

    /// The transports, as `--over` takes them.
    pub fn over(self, over: &str) -> Self {
        self.over_each(&[over])
    }

    /// The transports, as several `--over` take them.
    pub fn over_each<T: AsRef<str>>(mut self, over: &[T]) -> Self {
        self.over = over.iter().map(|item| item.as_ref().to_owned()).collect();
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

    /// In every `count`th switch the coordinator is replaced by one that knows nothing but what the
    /// agent remembers, after a time of any order of magnitude.
    pub fn forget_every(mut self, count: u64) -> Self {
        self.forget_every = Some(count);
        self
    }

    /// In every `count`th switch the agent dies, after a time of any order of magnitude, and another
    /// one begins that knows nothing.
    pub fn lose_agent_every(mut self, count: u64) -> Self {
        self.lose_agent_every = Some(count);
        self
    }

    /// No switch begins after this time; the job goes on.
    pub fn duration(mut self, time: Duration) -> Self {
        self.duration = Some(time);
        self
    }

    /// The job is slowed down by so many percent all the time.
    pub fn slow(mut self, percent: u8) -> Self {
        self.slow = percent;
        self
    }

    /// Where the job and its rehearsal run.
    pub fn at(mut self, place: Place) -> Self {
        self.place = place;
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
        let mut command = self.place.command(&release.guest);
        command
            .env("SYMVIRT_LIB", &release.library)
            .env("UCX_LOG_LEVEL", "error");
        command.args(["rehearse", "--every", &self.every, "--order", &self.order]);
        for over in &self.over {
            command.args(["--over", over]);
        }
        let patience = format!("{}ms", self.round_timeout.as_millis());
        command.args([
            "--round-timeout",
            &patience,
            "--slow",
            &self.slow.to_string(),
        ]);
        if let Some(switches) = self.switches {
            command.args(["--switches", &switches.to_string()]);
        }
        if let Some(count) = self.cancel_every {
            command.args(["--cancel-every", &count.to_string()]);
        }
        if let Some(count) = self.forget_every {
            command.args(["--forget-every", &count.to_string()]);
        }
        if let Some(count) = self.lose_agent_every {
            command.args(["--lose-agent-every", &count.to_string()]);
        }
        if let Some(time) = self.duration {
            command.args(["--duration", &format!("{}ms", time.as_millis())]);
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

/// As [`Mpi::job`] by Open MPI 4.1, on this machine.
pub fn mpirun(
    ranks: u32,
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Vec<String> {
    Mpi::OpenMpi4
        .job(ranks, program, arguments, environment)
        .words
}

/// As [`Mpi::job`] by MPICH 4.0, on this machine.
pub fn mpirun_mpich(ranks: u32, program: &str, arguments: &[&str]) -> Vec<String> {
    Mpi::Mpich40.job(ranks, program, arguments, &[]).words
}

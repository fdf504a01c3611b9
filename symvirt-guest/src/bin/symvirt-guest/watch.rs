//! The MPI processes of a job, looked at while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use symvirt_inspect::facts::{self, Facts};
use symvirt_inspect::finding::{self, Finding};
use symvirt_protocol::query::RankStatus;

/// MPI looks at several components before it chooses: what is seen must have been there for so
/// long.
const SETTLED: Duration = Duration::from_millis(900);
/// A process may take so long until it makes its first UCX context.
const STARTED: Duration = Duration::from_secs(5);

/// The MPI processes below a launcher, as they were last seen alive.
#[derive(Debug)]
pub struct Watch {
    proc: PathBuf,
    seen: BTreeMap<u32, Seen>,
    told: BTreeSet<Finding>,
    /// The transports at the last look need no HCA.
    without_hca: bool,
}

#[derive(Debug)]
struct Seen {
    born: Instant,
    /// What it showed last, since when.
    facts: Facts,
    since: Instant,
    /// What it showed for long enough.
    settled: Option<Facts>,
    /// Version of UCX, once it has joined.
    joined: Option<String>,
}

/// One process, for a report.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// What /proc showed.
    #[serde(flatten)]
    pub facts: Facts,
    /// Version of UCX, if the library joined the gang: it sends through UCP.
    pub ucx: Option<String>,
}

impl Watch {
    /// Of the processes of this machine.
    pub fn new() -> Watch {
        Watch {
            proc: Path::new("/proc").to_owned(),
            seen: BTreeMap::new(),
            told: BTreeSet::new(),
            without_hca: false,
        }
    }

    /// Looks at all processes below `launcher`; returns what was not found before. `without_hca`:
    /// the present transports need none.
    pub fn look(
        &mut self,
        launcher: u32,
        ranks: &[RankStatus],
        without_hca: bool,
        now: Instant,
    ) -> Vec<Finding> {
        self.without_hca = without_hca;
        let mut fresh = Vec::new();
        for pid in facts::family(&self.proc, launcher) {
            let Some(facts) = Facts::of(&self.proc, pid) else {
                continue;
            };
            let rank = ranks.iter().find(|rank| rank.pid == pid);
            if !facts.is_mpi() && rank.is_none() {
                continue;
            }
            let seen = self.seen.entry(pid).or_insert_with(|| Seen {
                born: now,
                facts: facts.clone(),
                since: now,
                settled: None,
                joined: None,
            });
            if let Some(rank) = rank {
                seen.joined = Some(rank.ucx_version.clone());
            }
            if seen.note(facts, now) {
                let findings = seen.findings(without_hca).into_iter();
                fresh.extend(findings.filter(|finding| self.told.insert(finding.clone())));
            }
        }
        fresh
    }

    /// What holds of the processes as they were last seen.
    pub fn findings(&self) -> BTreeSet<Finding> {
        let seen = self.seen.values();
        seen.flat_map(|seen| seen.findings(self.without_hca))
            .collect()
    }

    /// All processes that were seen.
    pub fn processes(&self) -> Vec<Process> {
        let process = |(&pid, seen): (&u32, &Seen)| Process {
            pid,
            facts: seen.settled.clone().unwrap_or_else(|| seen.facts.clone()),
            ucx: seen.joined.clone(),
        };
        self.seen.iter().map(process).collect()
    }
}

impl Seen {
    /// Whether it is time to tell of the process: it has settled, and had time to make a context.
    fn note(&mut self, facts: Facts, now: Instant) -> bool {
        // What a process uses changes while it starts, and while it ends.
        if self.facts != facts {
            self.since = now;
            self.facts = facts;
        }
        if now.duration_since(self.since) < SETTLED {
            return false;
        }
        self.settled = Some(self.facts.clone());
        let chosen = self.joined.is_some() || self.facts.has_chosen();
        chosen || now.duration_since(self.born) >= STARTED
    }

    fn findings(&self, without_hca: bool) -> Vec<Finding> {
        let settled = self.settled.iter();
        settled
            .flat_map(|facts| finding::of(facts, self.joined.is_some(), without_hca))
            .collect()
    }
}

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
    /// Version of UCX of each process that has ever joined: one that joins and leaves between two
    /// looks has used UCX all the same.
    joined: BTreeMap<u32, String>,
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
            joined: BTreeMap::new(),
            told: BTreeSet::new(),
            without_hca: false,
        }
    }

    /// Remembers who has joined.
    pub fn meet(&mut self, ranks: &[RankStatus]) {
        for rank in ranks {
            self.joined.insert(rank.pid, rank.ucx_version.clone());
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
        self.meet(ranks);
        let mut fresh = Vec::new();
        for pid in facts::family(&self.proc, launcher) {
            let Some(facts) = Facts::of(&self.proc, pid) else {
                continue;
            };
            let joined = self.joined.contains_key(&pid);
            if !facts.is_mpi() && !joined {
                continue;
            }
            let seen = self.seen.entry(pid).or_insert_with(|| Seen {
                born: now,
                facts: facts.clone(),
                since: now,
                settled: None,
            });
            if seen.note(facts, joined, now) {
                let findings = seen.findings(joined, without_hca).into_iter();
                fresh.extend(findings.filter(|finding| self.told.insert(finding.clone())));
            }
        }
        fresh
    }

    /// What holds of the processes as they were last seen.
    pub fn findings(&self) -> BTreeSet<Finding> {
        let of = |(pid, seen): (&u32, &Seen)| {
            seen.findings(self.joined.contains_key(pid), self.without_hca)
        };
        self.seen.iter().flat_map(of).collect()
    }

    /// All processes that were seen.
    pub fn processes(&self) -> Vec<Process> {
        let process = |(&pid, seen): (&u32, &Seen)| Process {
            pid,
            facts: seen.settled.clone().unwrap_or_else(|| seen.facts.clone()),
            ucx: self.joined.get(&pid).cloned(),
        };
        self.seen.iter().map(process).collect()
    }
}

impl Seen {
    /// Whether it is time to tell of the process: it has settled, and had time to make a context.
    fn note(&mut self, facts: Facts, joined: bool, now: Instant) -> bool {
        // What a process uses changes while it starts, and while it ends.
        if self.facts != facts {
            self.since = now;
            self.facts = facts;
        }
        if now.duration_since(self.since) < SETTLED {
            return false;
        }
        self.settled = Some(self.facts.clone());
        let chosen = joined || self.facts.has_chosen();
        chosen || now.duration_since(self.born) >= STARTED
    }

    fn findings(&self, joined: bool, without_hca: bool) -> Vec<Finding> {
        let settled = self.settled.iter();
        settled
            .flat_map(|facts| finding::of(facts, joined, without_hca))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use symvirt_protocol::ids::{Epoch, ProcId};

    use super::*;

    const LAUNCHER: u32 = 7;
    const PROCESS: u32 = 9;

    /// What /proc shows of a launcher and of an MPI process below it that has our library.
    fn proc_of_a_job() -> tempfile::TempDir {
        let proc = tempfile::tempdir().expect("tempdir");
        let maps = "7f01-7f02 r-xp 00001000 08:01 13 /usr/lib/libmpich.so.12\n\
                    7f03-7f04 r-xp 00001000 08:01 14 /usr/lib/libsymvirt.so";
        for (pid, parent, maps) in [(LAUNCHER, 1, ""), (PROCESS, LAUNCHER, maps)] {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).expect("mkdir");
            let stat = format!("{pid} (app) S {parent} {LAUNCHER}");
            for (name, text) in [("stat", stat.as_str()), ("comm", "app"), ("maps", maps)] {
                fs::write(folder.join(name), text).expect("write");
            }
        }
        proc
    }

    fn joined() -> RankStatus {
        RankStatus {
            process: ProcId(1),
            pid: PROCESS,
            program: "app".to_owned(),
            mpi_rank: Some(0),
            ucx_version: "1.13.1".to_owned(),
            member: true,
            epoch: Epoch(0),
            said: "Join".to_owned(),
            stands: None,
            spool_bytes: 0,
            spool_peak: 0,
        }
    }

    /// What is found of a process that is seen from its start to long after.
    fn found(met: &[RankStatus]) -> Vec<String> {
        let proc = proc_of_a_job();
        let mut watch = Watch {
            proc: proc.path().to_owned(),
            ..Watch::new()
        };
        let start = Instant::now();
        let mut fresh = watch.look(LAUNCHER, &[], true, start);
        watch.meet(met);
        fresh.extend(watch.look(LAUNCHER, &[], true, start + STARTED));
        assert_eq!(BTreeSet::from_iter(fresh), watch.findings());
        let findings = watch.findings();
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_process_that_joined_and_left_between_two_looks_has_used_ucx() {
        assert_eq!(found(&[joined()]), Vec::<String>::new());
    }

    #[test]
    fn a_process_that_never_joined_is_told() {
        let found = found(&[]);
        assert!(found[0].contains("no UCX context"), "{found:?}");
    }
}

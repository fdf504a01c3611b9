//! What the agent does with each message, without any I/O: multiplexes its ranks towards the
//! coordinator.
//!
//! ```text
//!  rank ── Join ──► waiting ──Welcome──► member ── Leave ──► departed (until its epoch is closed)
//!                      │                    │
//!                      └── no coordinator: welcomed by the agent itself, the job just runs
//! ```
//!
//! * Answers of ranks are gathered into one frame: sent when every member has said something, at
//!   the latest [`GATHER`] after the first. Joins, leaves and vetoes do not wait.
//! * A coordinator with a new memory gets `Hello`: the members, and what earlier coordinators told
//!   and heard ([`Memory`]); then the joins that nobody answered. A switch that was left half-way
//!   is the new coordinator's to settle: until then ranks stay where they are, and joins wait.
//! * Of what the coordinator says of peers and totals each rank is told its share only. What it
//!   needs beyond that it asks for ([`Core::reach`]), as when it first uses an endpoint that was
//!   silent before the switch.
//! * It does not decide anything about a switch; that is the coordinator's.

mod directory;
mod host;
mod ranks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::matches::Matches;
use symvirt_protocol::memory::Memory;
use symvirt_protocol::query::RankStatus;
use symvirt_protocol::rank::{FromRank, Join, ToRank};
use symvirt_protocol::share::Wants;
use symvirt_protocol::transport::{Interconnect, Transports};

use directory::Directory;

/// Longest wait for the other ranks' answers to a round.
const GATHER: Duration = Duration::from_millis(2);
/// How long a join waits for a coordinator that went away before the agent answers it.
const ORPHANED_JOIN: Duration = Duration::from_secs(5);

/// A rank's connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// What the driver is to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Write one message to each of these connections.
    Ranks(Vec<ConnId>, ToRank),
    /// Hand to the coordinator.
    Host(FromAgent),
    /// End the connection; the reason is for the log.
    Drop(ConnId, String),
    /// The coordinator asks for device reports.
    ReportDevices,
    /// It asks for the page cache to be dropped.
    DropCache,
}

/// Turns an interconnect into what it means in this guest now.
pub type Resolve = Box<dyn Fn(&Interconnect) -> Transports>;

#[derive(Debug)]
struct Rank {
    conn: ConnId,
    join: Join,
    member: bool,
    epoch: Epoch,
    since: Instant,
    said: &'static str,
    spool: Spool,
    /// Its last words on what it waits for, since it was asked something.
    stands: Option<String>,
    /// What it needs of its peers in the switch under way.
    wants: Wants,
}

/// A rank's spool, as it told at its last switch, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Spool {
    bytes: u64,
    peak: u64,
}

/// The coordinator, as seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    /// Never heard of: nothing is kept for it but who is here and who left.
    Unknown,
    /// Its memory includes this agent, but the channel is closed for now; the link keeps what it
    /// is to hear.
    Away,
    /// It listens.
    Present,
}

/// See the module.
pub struct Core {
    guest: String,
    resolve: Resolve,
    ranks: BTreeMap<ProcId, Rank>,
    by_conn: BTreeMap<ConnId, ProcId>,
    /// What the next coordinator is told.
    memory: Memory,
    /// How objects of the whole gang are reached.
    directory: Directory,
    /// The same in a switch that has not committed.
    next_directory: Option<(Epoch, Directory)>,
    host: Host,
    /// What ranks have said of matches: a coordinator may have ended before it told the senders, and
    /// nobody asks for them again.
    matches: Matches,
    /// Answers to go in one frame, and when it goes at the latest.
    gathered: Vec<(ProcId, FromRank)>,
    flush_at: Option<Instant>,
    /// Requests of the switch so far, and who owes an answer to the last.
    requests: u64,
    asked_in: Epoch,
    owing: BTreeSet<ProcId>,
    outputs: Vec<Output>,
}

impl Core {
    /// An agent without ranks and without a coordinator.
    pub fn new(guest: String, resolve: Resolve) -> Self {
        Core {
            guest,
            resolve,
            ranks: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            memory: Memory::default(),
            directory: Directory::default(),
            next_directory: None,
            host: Host::Unknown,
            matches: Matches::default(),
            gathered: Vec::new(),
            flush_at: None,
            requests: 0,
            asked_in: Epoch(0),
            owing: BTreeSet::new(),
            outputs: Vec::new(),
        }
    }

    /// The number of the last request of a switch, and the processes that have not answered it.
    pub fn owing(&self) -> (u64, Vec<(ProcId, u32)>) {
        let owing = self.owing.iter();
        let known = owing.filter_map(|process| Some((*process, self.ranks.get(process)?.join.pid)));
        (self.requests, known.collect())
    }

    /// What is to be done since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Core::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let alone = self.host != Host::Present && !self.memory.is_pending();
        let orphans = self.ranks.values().filter(|rank| !rank.member && alone);
        orphans
            .map(|rank| rank.since + ORPHANED_JOIN)
            .chain(self.flush_at)
            .min()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if self.host != Host::Present && !self.memory.is_pending() {
            let orphans = self.ranks.iter();
            let orphans = orphans.filter(|(_, r)| !r.member && r.since + ORPHANED_JOIN <= now);
            for process in orphans.map(|(process, _)| *process).collect::<Vec<_>>() {
                self.welcome_alone(process);
            }
        }
    }

    /// Tells the coordinator where a process stands that owes an answer: after its own last words,
    /// what was seen of it from outside.
    pub fn tell_where_it_stands(&mut self, process: ProcId, seen: &str) {
        let Some(rank) = self.ranks.get_mut(&process) else {
            return;
        };
        let own = rank.stands.take();
        let at = own.map_or_else(|| seen.to_owned(), |own| format!("{own}; {seen}"));
        rank.stands = Some(at.clone());
        let stands = FromRank::Stands {
            epoch: self.asked_in,
            at,
        };
        if self.host != Host::Unknown {
            self.flush();
            let said = FromAgent::Ranks(vec![(process, stands)]);
            self.outputs.push(Output::Host(said));
        }
    }

    /// The pids of processes that joined.
    pub fn rank_pids(&self) -> BTreeSet<u32> {
        self.ranks.values().map(|rank| rank.join.pid).collect()
    }

    /// For `status`.
    pub fn rank_status(&self) -> Vec<RankStatus> {
        let status = |(process, rank): (&ProcId, &Rank)| RankStatus {
            process: *process,
            pid: rank.join.pid,
            program: rank.join.program.clone(),
            mpi_rank: rank.join.mpi_rank,
            ucx_version: rank.join.ucx_version.clone(),
            member: rank.member,
            epoch: rank.epoch,
            said: rank.said.to_owned(),
            stands: rank.stands.clone(),
            spool_bytes: rank.spool.bytes,
            spool_peak: rank.spool.peak,
        };
        self.ranks.iter().map(status).collect()
    }

    /// Epoch, interconnect and what it means here.
    pub fn current(&self) -> (Epoch, Interconnect, Transports) {
        let (epoch, interconnect) = self.told();
        let transports = (self.resolve)(&interconnect);
        (epoch, interconnect, transports)
    }

    /// As a job begins, unless a coordinator has told otherwise.
    fn told(&self) -> (Epoch, Interconnect) {
        let current = self.memory.current.clone();
        current.unwrap_or((Epoch(0), Interconnect::Native))
    }

    /// The switch under way, and whether a coordinator is there.
    pub fn switch(&self) -> (Option<Epoch>, bool) {
        let pending = self.memory.round.as_ref().filter(|it| it.is_pending());
        (pending.map(|round| round.epoch), self.host == Host::Present)
    }
}

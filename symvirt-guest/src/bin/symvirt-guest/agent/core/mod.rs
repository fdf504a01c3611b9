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
//! * A coordinator with a new memory gets `Hello` (the members), then what departed ranks left
//!   behind, then the joins that nobody answered; a switch that it cannot know of is aborted here.
//! * It does not decide anything about a switch; that is the coordinator's.

mod host;
mod ranks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::query::RankStatus;
use symvirt_protocol::rank::{Blob, FromRank, Join, SwitchOrder, ToRank, WorkerCount};
use symvirt_protocol::transport::{Interconnect, Transports};

/// Longest wait for the other ranks' answers to a round.
const GATHER: Duration = Duration::from_millis(2);
/// How long a join waits for a coordinator that went away before the agent answers it.
const ORPHANED_JOIN: Duration = Duration::from_secs(5);
/// What departed ranks left behind is bounded; beyond it the oldest is forgotten.
const MAX_DEPARTED: usize = 65_536;

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
}

/// A rank's spool, as it told at its last switch, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Spool {
    bytes: u64,
    peak: u64,
}

/// How far a switch has come, as far as it passed through here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// `Abort` undoes it.
    Undoable,
    /// `Expect` was passed on, or `Proceed` if the drain is weighed.
    Decided,
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

#[derive(Debug)]
struct Round {
    epoch: Epoch,
    order: SwitchOrder,
    progress: Progress,
    /// Addresses of the switch under way, current once it is decided.
    table: Vec<Blob>,
}

/// The agent's memory.
pub struct Core {
    guest: String,
    resolve: Resolve,
    ranks: BTreeMap<ProcId, Rank>,
    by_conn: BTreeMap<ConnId, ProcId>,
    departed: Vec<(ProcId, Epoch, Vec<WorkerCount>)>,
    epoch: Epoch,
    interconnect: Interconnect,
    table: Vec<Blob>,
    round: Option<Round>,
    host: Host,
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
            departed: Vec::new(),
            epoch: Epoch(0),
            interconnect: Interconnect::Native,
            table: Vec::new(),
            round: None,
            host: Host::Unknown,
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
        let orphans = self
            .ranks
            .values()
            .filter(|rank| !rank.member && self.host != Host::Present);
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
        if self.host != Host::Present {
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
        (
            self.epoch,
            self.interconnect.clone(),
            (self.resolve)(&self.interconnect),
        )
    }

    /// The switch under way, and whether a coordinator is there.
    pub fn switch(&self) -> (Option<Epoch>, bool) {
        (
            self.round.as_ref().map(|round| round.epoch),
            self.host == Host::Present,
        )
    }
}

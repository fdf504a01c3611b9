//! What the coordinator tells its driver: effects, outcomes, and the reasons of failures.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::ToAgent;
use crate::ids::{Epoch, ProcId};
use crate::rank::{Join, Stall};

/// A guest of the gang, by the name its driver gives it (the VM's name, not the guest's claim).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GuestId(pub String);

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A rank as an operator would look for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RankName {
    /// The identity it drew.
    pub process: ProcId,
    /// Where it runs.
    pub guest: GuestId,
    /// Process id in that guest.
    pub pid: u32,
    /// Program name.
    pub program: String,
    /// Rank in MPI_COMM_WORLD, if known.
    pub mpi_rank: Option<u32>,
}

impl RankName {
    pub(super) fn of(guest: &GuestId, join: &Join) -> Self {
        RankName {
            process: join.process,
            guest: guest.clone(),
            pid: join.pid,
            program: join.program.clone(),
            mpi_rank: join.mpi_rank,
        }
    }
}

impl fmt::Display for RankName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mpi_rank {
            Some(rank) => write!(f, "rank {rank}")?,
            None => write!(f, "process {}", self.process)?,
        }
        write!(
            f,
            " ({}, pid {}, guest {})",
            self.program, self.pid, self.guest
        )
    }
}

/// A rank that has not answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub rank: RankName,
    /// Where it stands, if it or its agent has said.
    pub at: Option<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rank.fmt(f)?;
        match &self.at {
            Some(at) => write!(f, ", which stands: {at}"),
            None => Ok(()),
        }
    }
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Hand the message to the guest's channel, in this order.
    Send {
        /// To whom.
        guest: GuestId,
        /// What.
        message: ToAgent,
    },
    /// Something the driver waits for has happened.
    Outcome(Outcome),
}

/// What became of a switch. Every accepted switch or rebuild ends in exactly one outcome for
/// which [`Outcome::is_terminal`] holds, provided that its driver delivers timeouts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Every rank has the new transport ready; the gates close next.
    Voted {
        /// This switch.
        epoch: Epoch,
        /// Ranks that voted.
        ranks: usize,
    },
    /// Nothing is in flight on the old transport any more. Make-before-break: the job runs on
    /// the new one. Break-before-make: it stands still.
    Committed {
        /// This switch.
        epoch: Epoch,
        /// How long each rank stood still (so far).
        stalls: Vec<RankStall>,
    },
    /// Terminal, make-before-break: no process uses the old transport.
    Released {
        /// This switch.
        epoch: Epoch,
        /// The slowest rank's release, in microseconds.
        slowest_us: u64,
    },
    /// Terminal, break-before-make: no process uses any transport; ranks wait for a rebuild.
    Held {
        /// This switch.
        epoch: Epoch,
        /// The slowest rank's release, in microseconds.
        slowest_us: u64,
    },
    /// Terminal, after a rebuild: the job runs on the new transport.
    Opened {
        /// This switch.
        epoch: Epoch,
        /// How long each rank stood still in all.
        stalls: Vec<RankStall>,
    },
    /// Terminal: given up on all ranks without effect; it can be tried again under another
    /// epoch, or rebuilt again if `held`.
    Aborted {
        /// This switch.
        epoch: Epoch,
        /// The ranks are still held (it was a rebuild).
        held: bool,
        /// Why.
        reason: Reason,
    },
    /// Terminal: the gang is not whole any more, or a rank is past the point of abort and stuck.
    Failed {
        /// This switch.
        epoch: Epoch,
        /// Why.
        reason: Reason,
    },
    /// Outside of a switch: a member's process ended without leaving.
    RankDied {
        /// Which.
        rank: RankName,
    },
}

impl Outcome {
    /// Whether the switch or rebuild it belongs to is over.
    pub fn is_terminal(&self) -> bool {
        match self {
            Outcome::Released { .. }
            | Outcome::Held { .. }
            | Outcome::Opened { .. }
            | Outcome::Aborted { .. }
            | Outcome::Failed { .. } => true,
            Outcome::Voted { .. } | Outcome::Committed { .. } | Outcome::RankDied { .. } => false,
        }
    }
}

/// One rank's part of the job stall.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RankStall {
    /// Which.
    pub rank: RankName,
    /// As it measured it.
    pub stall: Stall,
}

/// Why a switch did not end as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Reason {
    /// A rank could not take part.
    #[error("{rank} vetoed: {reason}")]
    Veto {
        /// Which.
        rank: RankName,
        /// In its words.
        reason: String,
    },
    /// A rank finalized in mid-round.
    #[error("{rank} left during the switch")]
    Left {
        /// Which.
        rank: RankName,
    },
    /// A rank's process ended without leaving.
    #[error("{rank} died during {phase}")]
    Died {
        /// Which.
        rank: RankName,
        /// Where the switch stood.
        phase: Phase,
    },
    /// A guest's agent went away, or started anew and does not know of the switch.
    #[error("the agent of guest {guest} was lost during {phase}")]
    AgentLost {
        /// Which.
        guest: GuestId,
        /// Where the switch stood.
        phase: Phase,
    },
    /// Ranks did not answer in the time that the driver allowed.
    #[error("no answer during {phase} from {}", join(waiting))]
    TimedOut {
        /// Where the switch stands.
        phase: Phase,
        /// Who is missing.
        waiting: Vec<Missing>,
    },
    /// A coordinator was lost while nobody had changed over, and the next one has undone it.
    #[error("its coordinator was lost")]
    CoordinatorLost,
    /// The driver asked for it.
    #[error("cancelled")]
    Cancelled,
}

fn join(ranks: &[Missing]) -> String {
    ranks
        .iter()
        .map(Missing::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Where a switch stands, by what the coordinator waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// For `Published`.
    Prepare,
    /// For `Ready`.
    WireUp,
    /// For `Counters`.
    Commit,
    /// For `Weighed`.
    Weigh,
    /// For `Drained`.
    Drain,
    /// For `Released`.
    Release,
    /// For the driver's rebuild.
    Held,
    /// For `Opened`.
    Open,
    /// For `Aborted`.
    Abort,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Prepare => "prepare",
            Phase::WireUp => "wire-up",
            Phase::Commit => "commit",
            Phase::Weigh => "weigh",
            Phase::Drain => "drain",
            Phase::Release => "release",
            Phase::Held => "hold",
            Phase::Open => "open",
            Phase::Abort => "abort",
        })
    }
}

/// Why a command was not accepted; nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// One switch at a time.
    #[error("switch {epoch} is in {phase}")]
    Busy {
        /// The one under way.
        epoch: Epoch,
        /// Where it stands.
        phase: Phase,
    },
    /// Epochs only grow.
    #[error("epoch {asked} is not after {last}, the last one used")]
    Stale {
        /// In the command.
        asked: Epoch,
        /// The newest one used.
        last: Epoch,
    },
    /// An earlier coordinator's switch is to be settled first.
    #[error("a switch that an earlier coordinator began is not settled")]
    Unsettled,
    /// There is nothing to rebuild.
    #[error("the gang is not held")]
    NotHeld,
    /// There is nothing to abort.
    #[error("no switch is under way")]
    Idle,
    /// Ranks have been told what to expect: they change over.
    #[error("switch {epoch} is in {phase}, past the point of abort")]
    PastAbort {
        /// The one under way.
        epoch: Epoch,
        /// Where it stands.
        phase: Phase,
    },
}

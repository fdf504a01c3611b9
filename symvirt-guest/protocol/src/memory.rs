//! What an agent remembers of the gang, so that a coordinator that has only just begun learns in
//! the agent's hello what an earlier one had told and heard.
//!
//! ```text
//!  make-before-break  Prepare ─ Peers ─ Commit ─ Weigh ─ Drain ─ Release
//!  break-before-make                    Commit ─ Weigh ─ Drain ─ Release ─ Held
//!                                                                  ▲         │
//!                                          Open ◄─ RebuildPeers ◄─ RebuildPrepare
//! ```
//!
//! The stage is the furthest thing that ranks of this guest were told; a coordinator tells none of
//! them the next before all have answered the last. What ranks answered is kept as far as others
//! depend on it: addresses and counters. Of one switch, the last; the next one replaces it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, ProcId};
use crate::rank::{Blob, FromRank, Join, SwitchOrder, ToRank, WorkerCount};
use crate::transport::Interconnect;

/// What departed ranks sent is bounded; beyond it the oldest is forgotten.
const MAX_DEPARTED: usize = 65_536;
/// Processes that are remembered as gone for good.
pub(crate) const MAX_LEFT: usize = 4096;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Epoch and interconnect of the gang, if any coordinator ever told.
    pub current: Option<(Epoch, Interconnect)>,
    /// How objects of this guest's ranks are reached in that epoch.
    pub table: Vec<Blob>,
    /// What ranks of this guest sent that have left in the epoch, and are still to be received.
    pub departed: Vec<Departed>,
    /// Processes of this guest that left for good, oldest first.
    pub left: Vec<ProcId>,
    /// The last switch, under way or not.
    pub round: Option<RoundMemory>,
}

/// A rank that has left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Departed {
    /// Which.
    pub process: ProcId,
    /// The epoch that it ran in.
    pub epoch: Epoch,
    /// Messages that it sent in that epoch, per receiving worker.
    pub sent: Vec<WorkerCount>,
}

/// How far the ranks of a guest have been led, in the order of the telling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// Make-before-break: `Prepare`.
    Prepare,
    /// Make-before-break: `Peers`.
    Peers,
    /// `Commit`.
    Commit,
    /// `Expect`, only to weigh.
    Weigh,
    /// `Expect` or `Proceed`: from here on nothing is undone.
    Drain,
    /// `Release`. In break-before-make the gang is held from here on.
    Release,
    /// `Abort` of a rebuild.
    Held,
    /// Rebuild: `Prepare`.
    RebuildPrepare,
    /// Rebuild: `Peers`.
    RebuildPeers,
    /// `Open`.
    Open,
}

/// One switch, as far as it passed through this guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoundMemory {
    /// Which.
    pub epoch: Epoch,
    /// Told with `Commit`; what begins with `Prepare` makes before it breaks.
    pub order: SwitchOrder,
    /// What it aims at, if that was told.
    pub interconnect: Option<Interconnect>,
    /// The furthest that was told.
    pub stage: Stage,
    /// `Abort` was told; a rebuild that is aborted is at stage `Held` instead.
    pub aborted: bool,
    /// Ranks that take part, and are there.
    pub members: BTreeSet<ProcId>,
    /// Those of them that have not answered the last message of the switch, once it was told. After
    /// `Open`, all of them until the epoch is the current one.
    pub owing: BTreeSet<ProcId>,
    /// What ranks have said.
    pub said: Vec<Said>,
    /// Ranks that died before the end.
    pub died: Vec<Join>,
}

/// What one rank has said in a switch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Said {
    /// Which.
    pub process: ProcId,
    /// Its [`FromRank::Published`] blobs.
    pub blobs: Vec<Blob>,
    /// Its [`FromRank::Counters`].
    pub counters: Option<FromRank>,
}

impl RoundMemory {
    fn new(epoch: Epoch, order: SwitchOrder, stage: Stage) -> Self {
        RoundMemory {
            epoch,
            order,
            interconnect: None,
            stage,
            aborted: false,
            members: BTreeSet::new(),
            owing: BTreeSet::new(),
            said: Vec::new(),
            died: Vec::new(),
        }
    }

    /// Whether ranks are held, or on their way out of it.
    pub fn is_hold(&self) -> bool {
        let held = Stage::Release..Stage::Open;
        self.order == SwitchOrder::BreakBeforeMake && held.contains(&self.stage)
    }

    /// Whether a coordinator that meets this guest has something to bring to its end.
    pub fn is_pending(&self) -> bool {
        let last = self.aborted || matches!(self.stage, Stage::Release | Stage::Open);
        !self.members.is_empty() && (self.is_hold() || !last || !self.owing.is_empty())
    }

    fn said(&mut self, process: ProcId) -> &mut Said {
        let at = match self.said.iter().position(|said| said.process == process) {
            Some(at) => at,
            None => {
                self.said.push(Said {
                    process,
                    blobs: Vec::new(),
                    counters: None,
                });
                self.said.len() - 1
            }
        };
        &mut self.said[at]
    }
}

impl Memory {
    /// Whether the last switch has not come to its end here.
    pub fn is_pending(&self) -> bool {
        self.round.as_ref().is_some_and(RoundMemory::is_pending)
    }

    /// The gang is in an epoch now.
    pub fn current(&mut self, epoch: Epoch, interconnect: Interconnect) {
        if let Some(round) = self.round.as_mut().filter(|round| round.epoch == epoch) {
            if round.stage == Stage::Open {
                // All have opened, here and elsewhere.
                round.owing.clear();
            }
            let late = |said: &Said| match &said.counters {
                Some(FromRank::Counters { late, .. }) => late.clone(),
                _ => Vec::new(),
            };
            let blobs = |said: &Said| [said.blobs.clone(), late(said)].concat();
            let here = |said: &&Said| round.members.contains(&said.process);
            self.table = round.said.iter().filter(here).flat_map(blobs).collect();
        }
        self.current = Some((epoch, interconnect));
        self.round.take_if(|round| round.epoch < epoch);
        self.departed.retain(|departed| departed.epoch >= epoch);
    }

    /// Ranks are told to prepare.
    pub fn prepare(
        &mut self,
        epoch: Epoch,
        interconnect: Interconnect,
        members: impl Iterator<Item = ProcId>,
    ) {
        let held = |round: &&mut RoundMemory| round.epoch == epoch && round.is_hold();
        let round = match self.round.as_mut().filter(held) {
            Some(round) => {
                round.stage = Stage::RebuildPrepare;
                round.said.clear();
                round
            }
            None => self.round.insert(RoundMemory::new(
                epoch,
                SwitchOrder::MakeBeforeBreak,
                Stage::Prepare,
            )),
        };
        round.interconnect = Some(interconnect);
        round.members = members.collect();
        round.owing.clone_from(&round.members);
    }

    /// All ranks of this guest are told something.
    pub fn told(&mut self, message: &ToRank, members: impl Iterator<Item = ProcId>) {
        let Some(epoch) = message.epoch() else { return };
        if let ToRank::Commit { order, .. } = message
            && self.round.as_ref().is_none_or(|known| known.epoch != epoch)
        {
            self.round = Some(RoundMemory::new(epoch, *order, Stage::Commit));
        }
        let Some(round) = self.round.as_mut().filter(|round| round.epoch == epoch) else {
            return;
        };
        let stage = match message {
            ToRank::Peers { .. } if round.is_hold() => Stage::RebuildPeers,
            ToRank::Peers { .. } => Stage::Peers,
            ToRank::Commit { .. } => Stage::Commit,
            ToRank::Expect { weigh: true, .. } => Stage::Weigh,
            ToRank::Expect { .. } | ToRank::Proceed { .. } => Stage::Drain,
            ToRank::Release { .. } => Stage::Release,
            ToRank::Open { .. } => Stage::Open,
            ToRank::Abort { .. } if round.is_hold() => Stage::Held,
            ToRank::Abort { .. } => {
                round.aborted = true;
                round.said.clear();
                round.stage
            }
            ToRank::Prepare { .. }
            | ToRank::Welcome(_)
            | ToRank::Matched { .. }
            | ToRank::SlowDown { .. } => return,
        };
        // What a later coordinator repeats leads nobody back; only an abort does.
        let back = stage < round.stage && stage != Stage::Held;
        if !back {
            round.stage = stage;
        }
        round.members = members.collect();
        round.owing.clone_from(&round.members);
    }

    /// A rank says something.
    pub fn said(&mut self, process: ProcId, message: &FromRank) {
        let Some(round) = &mut self.round else { return };
        let is_last = match message {
            FromRank::Published { epoch, blobs, .. } if *epoch == round.epoch => {
                round.said(process).blobs.clone_from(blobs);
                false
            }
            FromRank::Counters { epoch, .. } if *epoch == round.epoch => {
                round.said(process).counters = Some(message.clone());
                false
            }
            FromRank::Released { epoch, .. } => {
                *epoch == round.epoch && round.stage == Stage::Release
            }
            FromRank::Aborted { epoch } => *epoch == round.epoch && round.aborted,
            FromRank::Published { .. }
            | FromRank::Counters { .. }
            | FromRank::Ready { .. }
            | FromRank::Weighed { .. }
            | FromRank::Drained { .. }
            | FromRank::Opened { .. }
            | FromRank::Join(_)
            | FromRank::Leave { .. }
            | FromRank::Veto { .. }
            | FromRank::Matched { .. }
            | FromRank::Stands { .. } => false,
        };
        if is_last {
            round.owing.remove(&process);
        }
    }

    /// A rank has left, by its own word.
    pub fn leaves(&mut self, process: ProcId, epoch: Epoch, sent: Vec<WorkerCount>) {
        if let Some(round) = &mut self.round {
            round.members.remove(&process);
            round.owing.remove(&process);
        }
        self.table.retain(|blob| blob.object.process != process);
        self.departed.push(Departed {
            process,
            epoch,
            sent,
        });
        self.left.push(process);
        drop_oldest(&mut self.departed, MAX_DEPARTED);
        drop_oldest(&mut self.left, MAX_LEFT);
    }

    /// A rank's process has ended without a word.
    pub fn dies(&mut self, join: &Join) {
        self.table
            .retain(|blob| blob.object.process != join.process);
        if let Some(round) = &mut self.round
            && round.members.contains(&join.process)
        {
            if round.is_pending() {
                round.died.push(join.clone());
            }
            round.members.remove(&join.process);
            round.owing.remove(&join.process);
        }
    }
}

fn drop_oldest<T>(list: &mut Vec<T>, most: usize) {
    if list.len() > most {
        list.drain(..list.len() - most);
    }
}

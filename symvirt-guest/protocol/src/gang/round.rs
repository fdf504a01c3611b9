//! One switch as the coordinator sees it: what was asked, where it stands, who is missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::gang::outcome::{Phase, RankStall, Reason};
use crate::gang::roster::add_counts;
use crate::gang::table::Table;
use crate::ids::{Epoch, ProcId, WorkerId};
use crate::rank::{FromRank, Load, SwitchOrder, SyncSend};
use crate::share::Wants;
use crate::transport::Interconnect;

#[derive(Debug)]
pub(super) struct Round {
    pub epoch: Epoch,
    pub interconnect: Interconnect,
    pub order: SwitchOrder,
    pub phase: Phase,
    /// Members whose answer the phase needs.
    pub waiting: BTreeSet<ProcId>,
    /// Where members stand that have not answered in this phase.
    pub stands: BTreeMap<ProcId, String>,
    /// How objects will be reached.
    pub published: Table,
    /// What each member needs of it.
    pub wants: BTreeMap<ProcId, Wants>,
    /// Hellos each worker will receive.
    pub hellos: BTreeMap<WorkerId, u64>,
    /// Messages each worker was sent in the closing epoch.
    pub sent: BTreeMap<WorkerId, u64>,
    /// Synchronous sends that were not matched when the gates closed.
    pub syncs: Vec<SyncSend>,
    /// Gates stay closed until every rank has drained.
    pub barrier: bool,
    /// What the ranks know of the size of the drain.
    pub loads: Vec<Load>,
    pub stalls: Vec<RankStall>,
    pub slowest_release_us: u64,
    /// Break-before-make: every rank has released; an abort from here on leads back to the hold.
    pub held: bool,
    /// Why the round is being undone (phase Abort).
    pub abort: Option<Abort>,
    /// The outcome is out already: the rest goes on as far as it can, unannounced.
    pub reported: bool,
}

#[derive(Debug)]
pub(super) enum Abort {
    /// Nobody was lost: can be tried again.
    Retry(Reason),
    /// The gang has lost a rank.
    Lost(Reason),
}

impl Round {
    pub fn new(epoch: Epoch, interconnect: Interconnect, order: SwitchOrder) -> Self {
        Round {
            epoch,
            interconnect,
            order,
            phase: match order {
                SwitchOrder::MakeBeforeBreak => Phase::Prepare,
                SwitchOrder::BreakBeforeMake => Phase::Commit,
            },
            waiting: BTreeSet::new(),
            stands: BTreeMap::new(),
            published: Table::default(),
            wants: BTreeMap::new(),
            hellos: BTreeMap::new(),
            sent: BTreeMap::new(),
            syncs: Vec::new(),
            barrier: false,
            loads: Vec::new(),
            stalls: Vec::new(),
            slowest_release_us: 0,
            held: false,
            abort: None,
            reported: false,
        }
    }

    /// Starts over with the making part, after a hold.
    pub fn rebuild(&mut self, interconnect: Interconnect) {
        self.interconnect = interconnect;
        self.phase = Phase::Prepare;
        self.published = Table::default();
        self.wants.clear();
        self.hellos.clear();
        self.stalls.clear();
        self.abort = None;
        self.reported = false;
    }

    /// Takes in what a rank says with its gate closed; whether it was that.
    pub fn count(&mut self, process: ProcId, counters: FromRank) -> bool {
        let FromRank::Counters {
            sent,
            mut syncs,
            late,
            atomics,
            load,
            ..
        } = counters
        else {
            return false;
        };
        self.loads.push(load);
        self.published.insert(process, late);
        self.barrier |= atomics && self.order == SwitchOrder::MakeBeforeBreak;
        add_counts(&mut self.sent, &sent);
        syncs.retain(|sync| sync.sender == process);
        self.syncs.append(&mut syncs);
        true
    }

    /// Whether what waits for its receive might not fit into some rank's spool.
    pub fn is_tight(&self) -> bool {
        let sending = self
            .loads
            .iter()
            .fold(0, |all: u64, load| all.saturating_add(load.sending));
        self.loads.iter().any(|load| load.is_tight(sending))
    }

    /// Whether `Abort` still undoes everything.
    pub fn can_abort(&self) -> bool {
        match self.phase {
            Phase::Prepare | Phase::WireUp | Phase::Commit | Phase::Weigh => true,
            Phase::Drain | Phase::Release | Phase::Held | Phase::Open | Phase::Abort => false,
        }
    }
}

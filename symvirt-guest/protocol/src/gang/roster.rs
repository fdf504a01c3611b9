//! Who is in the gang: members, ranks waiting for their welcome, and what departed ranks have
//! sent that their peers still have to receive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::gang::outcome::{GuestId, RankName};
use crate::ids::{Epoch, ProcId, WorkerId};
use crate::rank::{Join, WorkerCount};

/// Ranks one guest may have at a time; a guest is not trusted to stop by itself.
pub(super) const MAX_RANKS_PER_GUEST: usize = 4096;

/// Processes that are remembered as gone for good.
const MAX_LEFT: usize = 4096;

#[derive(Debug)]
pub(super) struct Member {
    pub guest: GuestId,
    pub join: Join,
    /// The epoch it runs in: the gang's, or already the one of the switch under way.
    pub epoch: Epoch,
    /// Its agent started anew and has not heard of it yet: it joins again, or it is dead.
    pub absent: bool,
}

impl Member {
    pub fn name(&self) -> RankName {
        RankName {
            process: self.join.process,
            guest: self.guest.clone(),
            pid: self.join.pid,
            program: self.join.program.clone(),
            mpi_rank: self.join.mpi_rank,
        }
    }
}

#[derive(Debug)]
struct Departed {
    epoch: Epoch,
    sent: Vec<WorkerCount>,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    pub guests: BTreeSet<GuestId>,
    pub members: BTreeMap<ProcId, Member>,
    /// Joined during a switch, in order of arrival.
    pub parked: Vec<(GuestId, Join)>,
    departed: BTreeMap<ProcId, Departed>,
    /// Processes that have said that they leave, oldest first.
    left: VecDeque<ProcId>,
}

impl Roster {
    pub fn is_member_of(&self, process: ProcId, guest: &GuestId) -> bool {
        self.members
            .get(&process)
            .is_some_and(|member| member.guest == *guest)
    }

    /// Whether the process is known, but in another guest than the one that claims it.
    pub fn is_elsewhere(&self, process: ProcId, guest: &GuestId) -> bool {
        let member = self.members.get(&process).map(|member| &member.guest);
        let parked = self
            .parked
            .iter()
            .find(|(_, join)| join.process == process)
            .map(|p| &p.0);
        member.or(parked).is_some_and(|home| home != guest)
    }

    pub fn has_room(&self, guest: &GuestId) -> bool {
        let members = self
            .members
            .values()
            .filter(|member| member.guest == *guest)
            .count();
        let parked = self.parked.iter().filter(|(home, _)| home == guest).count();
        members + parked < MAX_RANKS_PER_GUEST
    }

    pub fn park(&mut self, guest: &GuestId, join: Join) {
        self.parked
            .retain(|(_, other)| other.process != join.process);
        self.parked.push((guest.clone(), join));
    }

    pub fn unpark(&mut self, process: ProcId) {
        self.parked.retain(|(_, join)| join.process != process);
    }

    /// Guests that have at least one member, each once.
    pub fn populated(&self) -> BTreeSet<GuestId> {
        self.members
            .values()
            .map(|member| member.guest.clone())
            .collect()
    }

    /// Processes that have left, by their own word: no worker that they had will come back.
    pub fn left(&self) -> impl Iterator<Item = ProcId> {
        self.left.iter().copied()
    }

    /// A process has left.
    pub fn remember_left(&mut self, process: ProcId) {
        if self.left.len() >= MAX_LEFT {
            self.left.pop_front();
        }
        self.left.push_back(process);
    }

    /// Keeps what a leaving member has sent until the switch that closes `epoch` commits. A process
    /// that joins and leaves again adds to it.
    pub fn remember_departed(&mut self, process: ProcId, epoch: Epoch, sent: Vec<WorkerCount>) {
        let full = self.departed.len() >= MAX_RANKS_PER_GUEST * self.guests.len().max(1);
        match self.departed.get_mut(&process) {
            Some(before) if before.epoch == epoch => before.sent.extend(sent),
            None if full => {}
            Some(_) | None => {
                self.departed.insert(process, Departed { epoch, sent });
            }
        }
    }

    /// What a rank sent that left while this coordinator was away; counts once, however often its
    /// agent repeats it.
    pub fn remember_unseen(&mut self, process: ProcId, epoch: Epoch, sent: Vec<WorkerCount>) {
        if !self.departed.contains_key(&process) {
            self.remember_departed(process, epoch, sent);
        }
    }

    pub fn add_departed_of(&self, epoch: Epoch, totals: &mut BTreeMap<WorkerId, u64>) {
        for departed in self
            .departed
            .values()
            .filter(|departed| departed.epoch == epoch)
        {
            add_counts(totals, &departed.sent);
        }
    }

    pub fn forget_departed_before(&mut self, epoch: Epoch) {
        self.departed.retain(|_, departed| departed.epoch >= epoch);
    }
}

/// Sums per worker; a hostile count saturates and cannot take a panic along.
pub(super) fn add_counts(totals: &mut BTreeMap<WorkerId, u64>, counts: &[WorkerCount]) {
    for WorkerCount { worker, count } in counts {
        let total = totals.entry(*worker).or_default();
        *total = total.saturating_add(*count);
    }
}

pub(super) fn to_counts(totals: BTreeMap<WorkerId, u64>) -> Vec<WorkerCount> {
    totals
        .into_iter()
        .map(|(worker, count)| WorkerCount { worker, count })
        .collect()
}

//! Who is in the gang: members, ranks waiting for their welcome, and what departed ranks have
//! sent that their peers still have to receive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::gang::outcome::{GuestId, RankName};
use crate::ids::{Epoch, ProcId, WorkerId};
use crate::memory::{self, MAX_LEFT};
use crate::rank::{Join, WorkerCount};

/// Ranks one guest may have at a time; a guest is not trusted to stop by itself.
pub(super) const MAX_RANKS_PER_GUEST: usize = 4096;

/// Counts of messages that departed ranks have sent, in all.
const MAX_DEPARTED_COUNTS: usize = 4 << 20;

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
        RankName::of(&self.guest, &self.join)
    }
}

#[derive(Debug)]
struct Departed {
    guest: GuestId,
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
        if self.left.contains(&process) {
            return;
        }
        if self.left.len() >= MAX_LEFT {
            self.left.pop_front();
        }
        self.left.push_back(process);
    }

    /// Keeps what a leaving member has sent until the switch that closes `epoch` commits. A process
    /// that joins and leaves again adds to it.
    pub fn remember_departed(
        &mut self,
        process: ProcId,
        guest: &GuestId,
        epoch: Epoch,
        sent: Vec<WorkerCount>,
    ) {
        let kept: usize = self.departed.values().map(|it| it.sent.len()).sum();
        let full = self.departed.len() >= MAX_RANKS_PER_GUEST * self.guests.len().max(1)
            || kept + sent.len() > MAX_DEPARTED_COUNTS;
        match self.departed.get_mut(&process) {
            _ if full => {}
            Some(before) if before.epoch == epoch => before.sent.extend(sent),
            Some(_) | None => {
                let guest = guest.clone();
                self.departed
                    .insert(process, Departed { guest, epoch, sent });
            }
        }
    }

    /// What an agent remembers of its departed ranks takes the place of what was known of them.
    pub fn replace_departed(&mut self, guest: &GuestId, departed: Vec<memory::Departed>) {
        self.departed.retain(|_, known| known.guest != *guest);
        for memory::Departed {
            process,
            epoch,
            sent,
        } in departed
        {
            if !self.departed.contains_key(&process) || self.is_departed_of(process, guest) {
                self.remember_departed(process, guest, epoch, sent);
            }
        }
    }

    fn is_departed_of(&self, process: ProcId, guest: &GuestId) -> bool {
        self.departed
            .get(&process)
            .is_some_and(|known| known.guest == *guest)
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

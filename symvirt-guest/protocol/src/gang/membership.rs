//! Who is in the gang: ranks that join, leave, or are found again by their agent's next session.

use super::Gang;
use super::outcome::{Effect, GuestId, Phase, Reason};
use super::roster::Member;
use super::round::Round;
use super::table::Table;
use crate::agent::{Recipient, ToAgent};
use crate::ids::{Epoch, ProcId, WorkerId};
use crate::memory::Memory;
use crate::rank::{Join, SwitchOrder, ToRank, Welcome, WorkerCount};
use crate::transport::Transports;

impl Gang {
    /// A new session with an agent.
    pub(super) fn hello(
        &mut self,
        guest: &GuestId,
        ranks: Vec<Join>,
        memory: Memory,
        effects: &mut Vec<Effect>,
    ) {
        self.roster.guests.insert(guest.clone());
        self.roster.parked.retain(|(home, _)| home != guest);
        for process in self.members_of(guest) {
            if let Some(member) = self.roster.members.get_mut(&process) {
                member.absent = true;
            }
        }
        let was_empty = self.roster.members.is_empty();
        let stage = self.remind(guest, memory, effects);
        let mut newcomers = false;
        let mut back = Vec::new();
        for join in ranks {
            if self.roster.is_elsewhere(join.process, guest) || !self.roster.has_room(guest) {
                continue;
            }
            let remembered = self.memories.values().any(|it| it.epoch == join.epoch);
            if was_empty && join.epoch > self.epoch && self.round.is_none() && !remembered {
                // An earlier coordinator took them there, and the agent has forgotten.
                self.epoch = join.epoch;
                self.last_used = self.last_used.max(join.epoch);
                self.table = Table::default();
            }
            newcomers |= !self.roster.members.contains_key(&join.process);
            back.push((join.process, join.epoch));
            let epoch = join.epoch;
            self.admit(guest, join, epoch);
        }
        if let Some(stage) = stage {
            effects.extend(self.repeat(guest, stage));
        }
        let undoable = self.round.as_ref().is_some_and(Round::can_abort);
        let reminded = stage.is_some() && !undoable;
        let affected = |process: &ProcId| undoable || self.is_awaited(*process);
        if newcomers || (!reminded && self.members_of(guest).iter().any(affected)) {
            self.agent_restarted(guest, newcomers, effects);
        }
        if !reminded {
            for (process, epoch) in back {
                self.catch_up(process, epoch, effects);
            }
        }
        effects.push(self.current(guest));
        let unrelayed = std::mem::take(&mut self.unrelayed);
        self.relay_matches(unrelayed, effects);
    }

    pub(super) fn members_of(&self, guest: &GuestId) -> Vec<ProcId> {
        let members = self
            .roster
            .members
            .iter()
            .filter(|(_, member)| member.guest == *guest);
        members.map(|(process, _)| *process).collect()
    }

    pub(super) fn is_awaited(&self, process: ProcId) -> bool {
        self.round
            .as_ref()
            .is_some_and(|round| round.waiting.contains(&process))
    }

    fn admit(&mut self, guest: &GuestId, mut join: Join, epoch: Epoch) {
        let process = join.process;
        let blobs = std::mem::take(&mut join.blobs);
        if join.epoch == self.epoch {
            self.table.insert(process, blobs);
        }
        let member = Member {
            guest: guest.clone(),
            join,
            epoch,
            absent: false,
        };
        self.roster
            .members
            .entry(process)
            .and_modify(|known| known.absent = false)
            .or_insert(member);
    }

    pub(super) fn current(&self, guest: &GuestId) -> Effect {
        Effect::Send {
            guest: guest.clone(),
            message: ToAgent::Current {
                epoch: self.epoch,
                interconnect: self.interconnect.clone(),
            },
        }
    }

    /// Makes the rank a member and lets it start.
    pub(super) fn welcome(&mut self, guest: &GuestId, join: Join, effects: &mut Vec<Effect>) {
        let process = join.process;
        self.admit(guest, join, self.epoch);
        let welcome = ToRank::Welcome(Welcome {
            epoch: self.epoch,
            // The agent puts in what the interconnect means in its guest.
            transports: Transports::default(),
        });
        effects.push(Effect::Send {
            guest: guest.clone(),
            message: ToAgent::Ranks(vec![(Recipient::One(process), welcome)]),
        });
    }

    pub(super) fn join(&mut self, guest: &GuestId, join: Join, effects: &mut Vec<Effect>) {
        let known = self.roster.members.contains_key(&join.process);
        if !known && !self.roster.has_room(guest) {
            return;
        }
        match &self.round {
            None if !known && (self.meeting || self.is_unsettled()) => {
                self.roster.park(guest, join)
            }
            Some(round) if !known && round.phase != Phase::Release => self.roster.park(guest, join),
            Some(round) if !known && round.order == SwitchOrder::BreakBeforeMake => {
                self.roster.park(guest, join);
            }
            _ => {
                let (process, epoch) = (join.process, join.epoch);
                self.welcome(guest, join, effects);
                if known {
                    // Its agent may have died with what it was told last.
                    let matched = self.relayed.of_sender(process);
                    self.tell_matched(&matched, effects);
                }
                let undoable = self.round.as_ref().is_some_and(Round::can_abort);
                if undoable && self.is_awaited(process) {
                    // Whatever it has heard of the round went with its agent.
                    self.agent_restarted(guest, false, effects);
                } else {
                    self.repeat_abort(guest, process, effects);
                    self.catch_up(process, epoch, effects);
                }
            }
        }
    }

    pub(super) fn leave(
        &mut self,
        guest: &GuestId,
        process: ProcId,
        sent: Vec<WorkerCount>,
        effects: &mut Vec<Effect>,
    ) {
        self.roster.unpark(process);
        let sent = sent
            .into_iter()
            .filter(|count| self.may_receive(count.worker))
            .collect();
        let Some(member) = self.remove(process) else {
            return;
        };
        self.roster
            .remember_departed(process, guest, member.epoch, sent);
        self.roster.remember_left(process);
        let rank = member.name();
        self.go_without(process, Reason::Left { rank }, effects);
    }

    /// Only members receive: bounds what a guest can make the coordinator keep, once it knows them.
    fn may_receive(&self, worker: WorkerId) -> bool {
        self.meeting
            || self.roster.members.contains_key(&worker.process)
            || self
                .roster
                .parked
                .iter()
                .any(|(_, join)| join.process == worker.process)
    }
}

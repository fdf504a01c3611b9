//! The coordinator of a gang: one switch after another, pure. What agents say goes in, messages
//! and outcomes come out; the driver owns channels, clock and journal.
//!
//! ```text
//!          switch(make-before-break)                  switch(break-before-make)
//!  Idle ────────────┬───────────────────────────────────────────┐
//!    ▲              ▼                                           ▼
//!    │           Prepare ─► WireUp ═ Voted ═► Commit ─► Drain ═ Committed ═► Release
//!    │              ▲         │                │                              │  │
//!    │      rebuild │         │ (held)         │ Abort: up to here            │  │
//!    │              │         ▼                ▼                              │  │
//!    │             Held     Open             Abort ═ Aborted ═► Idle or Held  │  │
//!    │              ▲         │                                               │  │
//!    │              └─────────┼──────────────────── Held ═════════════════════┘  │
//!    └──════ Opened ══════════┴──────────────────── Released ════════════════════┘
//! ```
//!
//! * No `Commit` before every member is `Ready`, no `Expect` before every `Counters`, no
//!   `Release` before every `Drained`.
//! * Where what is in flight might not fit into some rank's spool, the phase Weigh stands between
//!   Commit and Drain: no `Proceed` before every `Weighed`, and one rank's veto undoes the switch
//!   on all. Otherwise the drain costs one exchange less and cannot be refused.
//! * Totals per receiving worker are those of all members plus those of ranks that left in the
//!   closing epoch.
//! * A rank that joins during a switch is parked until it ends; one that leaves before `Expect`
//!   makes it abandoned, to be tried again.
//! * A rank that dies, or an agent that loses its memory, fails the switch: undone on the others
//!   before `Expect`, carried on as far as they can after it, unannounced.
//! * A guest speaks for its own ranks only. Messages of other epochs, repeated or out of phase,
//!   change nothing.
//! * A coordinator that begins anew learns from the agents' memories what an earlier one had begun,
//!   and brings it to its end before anything else ([`Gang::recover`]).
//! * Each guest is sent what its ranks need, once, whatever their number: who is their peer, and
//!   what was sent to them. See [`crate::share`] for what the agent makes of it.
//!
//! It does not choose epochs (see [`Gang::next_epoch`]), know devices, or retransmit
//! ([`crate::link`] does).

mod membership;
mod outcome;
mod recovery;
mod relay;
mod restart;
mod roster;
mod round;
mod steps;
mod table;

use std::collections::BTreeMap;

use crate::agent::FromAgent;
use crate::ids::{Epoch, ProcId};
use crate::matches::Matches;
use crate::memory::RoundMemory;
use crate::rank::{FromRank, SwitchOrder, SyncSend, ToRank};
use crate::transport::Interconnect;

pub use outcome::{Effect, GuestId, Missing, Outcome, Phase, RankName, RankStall, Reason, Refusal};
pub use recovery::Unsettled;
pub use restart::ABSENCE;
use roster::{Member, Roster};
use round::Round;
use table::Table;

/// All ranks of one job, and the switch under way.
#[derive(Debug)]
pub struct Gang {
    epoch: Epoch,
    last_used: Epoch,
    interconnect: Interconnect,
    /// How objects are reached since the last switch that committed.
    table: Table,
    roster: Roster,
    round: Option<Round>,
    /// Matches whose senders are not known, or not known yet.
    unrelayed: Vec<SyncSend>,
    /// Those that were told to the agents of their senders.
    relayed: Matches,
    /// What ranks were told last in the last round.
    last: Option<ToRank>,
    /// The last round as agents remember it that this coordinator has not led.
    memories: BTreeMap<GuestId, RoundMemory>,
    /// There may be guests of the gang that were not heard yet.
    meeting: bool,
}

impl Gang {
    /// A gang whose job starts on `interconnect`, in epoch 0.
    pub fn new(interconnect: Interconnect) -> Self {
        Gang {
            meeting: false,
            ..Self::resume(Epoch(0), interconnect)
        }
    }

    /// A gang that an earlier coordinator left in `epoch`, or further: its agents remember. Ranks
    /// that join wait for [`Gang::recover`], or the first switch.
    pub fn resume(epoch: Epoch, interconnect: Interconnect) -> Self {
        Gang {
            epoch,
            last_used: epoch,
            interconnect,
            table: Table::default(),
            roster: Roster::default(),
            round: None,
            unrelayed: Vec::new(),
            relayed: Matches::new(),
            last: None,
            memories: BTreeMap::new(),
            meeting: true,
        }
    }

    /// The epoch that the members are in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The smallest epoch that [`Gang::switch`] accepts.
    pub fn next_epoch(&self) -> Epoch {
        Epoch(self.last_used.0.saturating_add(1))
    }

    /// The interconnect that the members are on.
    pub fn interconnect(&self) -> &Interconnect {
        &self.interconnect
    }

    /// The members.
    pub fn ranks(&self) -> impl Iterator<Item = RankName> {
        self.roster.members.values().map(Member::name)
    }

    /// How many ranks wait for the end of the switch to be welcomed.
    pub fn parked(&self) -> usize {
        self.roster.parked.len()
    }

    /// Guests whose agent is connected.
    pub fn guests(&self) -> impl Iterator<Item = &GuestId> {
        self.roster.guests.iter()
    }

    /// Where the switch under way stands, `None` if there is none.
    pub fn phase(&self) -> Option<(Epoch, Phase)> {
        self.round.as_ref().map(|round| (round.epoch, round.phase))
    }

    /// Members whose answer the switch waits for, and where they stand.
    pub fn waiting(&self) -> Vec<Missing> {
        let rounds = self.round.iter();
        let waiting = rounds.flat_map(|round| round.waiting.iter().map(move |it| (round, it)));
        waiting
            .filter_map(|(round, process)| {
                let member = self.roster.members.get(process)?;
                let (rank, at) = (member.name(), round.stands.get(process).cloned());
                Some(Missing { rank, at })
            })
            .collect()
    }

    /// Starts a switch. With no members it runs through at once.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Stale`], [`Refusal::Unsettled`]; nothing has changed.
    pub fn switch(
        &mut self,
        epoch: Epoch,
        interconnect: Interconnect,
        order: SwitchOrder,
    ) -> Result<Vec<Effect>, Refusal> {
        if let Some((epoch, phase)) = self.phase() {
            return Err(Refusal::Busy { epoch, phase });
        }
        if epoch <= self.last_used {
            return Err(Refusal::Stale {
                asked: epoch,
                last: self.last_used,
            });
        }
        if self.is_unsettled() {
            return Err(Refusal::Unsettled);
        }
        self.memories.clear();
        self.meeting = false;
        self.last_used = epoch;
        let round = Round::new(epoch, interconnect, order);
        let first = round.phase;
        self.round = Some(round);
        let mut effects = Vec::new();
        self.enter(first, &mut effects);
        Ok(effects)
    }

    /// Rebuilds a held gang onto `interconnect`, in the epoch of its hold.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`]; nothing has changed.
    pub fn rebuild(&mut self, interconnect: Interconnect) -> Result<Vec<Effect>, Refusal> {
        match &mut self.round {
            Some(round) if round.phase == Phase::Held => round.rebuild(interconnect),
            _ => return Err(Refusal::NotHeld),
        }
        let mut effects = Vec::new();
        self.enter(Phase::Prepare, &mut effects);
        Ok(effects)
    }

    /// Undoes the switch (or rebuild) under way on all ranks. While that goes on already, does
    /// nothing.
    ///
    /// # Errors
    /// [`Refusal::Idle`], [`Refusal::PastAbort`]; nothing has changed.
    pub fn abort(&mut self) -> Result<Vec<Effect>, Refusal> {
        let round = self.round.as_ref().ok_or(Refusal::Idle)?;
        let mut effects = Vec::new();
        if round.can_abort() {
            self.abandon(round::Abort::Retry(Reason::Cancelled), &mut effects);
        } else if round.phase != Phase::Abort {
            return Err(Refusal::PastAbort {
                epoch: round.epoch,
                phase: round.phase,
            });
        }
        Ok(effects)
    }

    /// The driver's patience with the present phase is over: the switch is undone if that is
    /// possible, otherwise failed, and goes on unannounced.
    pub fn time_out(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some((_, phase)) = self.phase() else {
            return effects;
        };
        let reason = Reason::TimedOut {
            phase,
            waiting: self.waiting(),
        };
        effects.extend(self.give_up_absent());
        match &self.round {
            None => {}
            // Some of the missing were dead, and that decided the round.
            Some(round) if round.phase != phase => {}
            Some(round) if round.phase == Phase::Held => {}
            Some(round) if round.can_abort() => {
                self.abandon(round::Abort::Retry(reason), &mut effects);
            }
            Some(_) => self.report_failure(reason, &mut effects),
        }
        effects
    }

    /// A message from a guest's agent. What it tells of its guest is for the driver.
    pub fn hear(&mut self, guest: &GuestId, message: FromAgent) -> Vec<Effect> {
        let mut effects = Vec::new();
        match message {
            FromAgent::Hello { ranks, memory, .. } => {
                self.hello(guest, ranks, *memory, &mut effects);
            }
            FromAgent::Ranks(messages) => {
                for (process, message) in messages {
                    self.hear_rank(guest, process, message, &mut effects);
                }
            }
            FromAgent::Gone { process, .. } => {
                if self.roster.is_member_of(process, guest) {
                    self.rank_gone(process, &mut effects);
                } else if !self.roster.is_elsewhere(process, guest) {
                    self.roster.unpark(process);
                }
            }
            FromAgent::Ask { epoch, objects } => effects.push(self.ask(guest, epoch, objects)),
            FromAgent::Devices(_) | FromAgent::Problem { .. } | FromAgent::CacheDropped { .. } => {}
        }
        effects
    }

    /// The guest is lost for good (its VM is gone), not merely disconnected: so are its ranks.
    pub fn lose_guest(&mut self, guest: &GuestId) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.roster.guests.remove(guest);
        self.roster.parked.retain(|(home, _)| home != guest);
        for process in self.members_of(guest) {
            self.rank_gone(process, &mut effects);
        }
        effects
    }

    fn hear_rank(
        &mut self,
        guest: &GuestId,
        process: ProcId,
        message: FromRank,
        effects: &mut Vec<Effect>,
    ) {
        if self.roster.is_elsewhere(process, guest) {
            return;
        }
        match message {
            FromRank::Join(join) if join.process == process => self.join(guest, join, effects),
            FromRank::Join(_) => {}
            FromRank::Leave { sent } => self.leave(guest, process, sent, effects),
            FromRank::Matched { syncs } => {
                let own = |sync: &SyncSend| sync.worker.process == process;
                self.relay_matches(syncs.into_iter().filter(own), effects);
            }
            FromRank::Published { .. }
            | FromRank::Ready { .. }
            | FromRank::Veto { .. }
            | FromRank::Counters { .. }
            | FromRank::Weighed { .. }
            | FromRank::Drained { .. }
            | FromRank::Released { .. }
            | FromRank::Opened { .. }
            | FromRank::Stands { .. }
            | FromRank::Aborted { .. } => {
                if self.roster.members.contains_key(&process) {
                    self.answer(process, message, effects);
                }
            }
        }
    }
}

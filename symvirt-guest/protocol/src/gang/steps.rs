//! How a round advances: answers, departures, and the entry into each phase.

use std::collections::BTreeSet;
use std::time::Duration;

use super::outcome::{Effect, Outcome, Phase, RankStall, Reason};
use super::roster::{Member, add_counts};
use super::round::Abort;
use super::{Gang, Round};
use crate::agent::{Recipient, ToAgent};
use crate::ids::{Epoch, ProcId};
use crate::rank::{FromRank, SwitchOrder, ToRank};
use crate::share::Wants;

/// Most bytes that are kept of where a rank stands.
const MAX_STAND: usize = 4096;

impl Gang {
    /// Asks every member for what `phase` needs, and passes it at once if there is none.
    pub(super) fn enter(&mut self, phase: Phase, effects: &mut Vec<Effect>) {
        let members: BTreeSet<ProcId> = self.roster.members.keys().copied().collect();
        let Some(round) = &mut self.round else { return };
        round.phase = phase;
        round.waiting = members;
        round.stands.clear();
        if phase == Phase::Held {
            round.waiting.clear();
            return;
        }
        effects.extend(self.requests());
        self.advance_if_complete(effects);
    }

    /// What the members are asked for in the present phase, by guest.
    pub(super) fn requests(&self) -> Vec<Effect> {
        let Some(round) = &self.round else {
            return Vec::new();
        };
        let epoch = round.epoch;
        let same = match round.phase {
            Phase::Prepare => {
                let interconnect = round.interconnect.clone();
                return self.to_all(&ToAgent::Prepare {
                    epoch,
                    interconnect,
                });
            }
            Phase::WireUp => return self.peers(round),
            Phase::Commit => ToRank::Commit {
                epoch,
                order: round.order,
            },
            Phase::Drain if round.is_tight() => ToRank::Proceed { epoch },
            Phase::Weigh | Phase::Drain => return self.totals(round),
            Phase::Release => ToRank::Release { epoch },
            Phase::Open => ToRank::Open { epoch },
            Phase::Abort => ToRank::Abort { epoch },
            Phase::Held => return Vec::new(),
        };
        self.to_all(&ToAgent::Ranks(vec![(Recipient::All, same)]))
    }

    /// Asks all ranks to stand still for a part of the time, in the same beat; for `lasting` unless
    /// it is said again, 0 percent ends it. During a switch they may not hear it.
    pub fn slow_down(&self, percent: u8, lasting: Duration) -> Vec<Effect> {
        let millis = u32::try_from(lasting.as_millis()).unwrap_or(u32::MAX);
        let slower = ToRank::SlowDown { percent, millis };
        self.to_all(&ToAgent::Ranks(vec![(Recipient::All, slower)]))
    }

    fn to_all(&self, message: &ToAgent) -> Vec<Effect> {
        let send = |guest| Effect::Send {
            guest,
            message: message.clone(),
        };
        self.roster.populated().into_iter().map(send).collect()
    }

    /// An answer of a member to the phase's request.
    pub(super) fn answer(&mut self, process: ProcId, message: FromRank, effects: &mut Vec<Effect>) {
        let Some(member) = self.roster.members.get_mut(&process) else {
            return;
        };
        let Some(round) = &mut self.round else { return };
        if !round.waiting.contains(&process) {
            return;
        }
        let this = |epoch: Epoch| epoch == round.epoch;
        match (round.phase, message) {
            (
                Phase::Prepare,
                FromRank::Published {
                    epoch,
                    blobs,
                    hellos,
                    opens,
                },
            ) if this(epoch) => {
                round.published.insert(process, blobs);
                round.wants.insert(process, Wants::new(&hellos, &opens));
                add_counts(&mut round.hellos, &hellos);
            }
            (Phase::WireUp, FromRank::Ready { epoch }) if this(epoch) => {}
            (
                Phase::Prepare | Phase::WireUp | Phase::Commit | Phase::Weigh,
                FromRank::Veto { epoch, reason },
            ) if this(epoch) => {
                let rank = member.name();
                self.abandon(Abort::Retry(Reason::Veto { rank, reason }), effects);
                return;
            }
            (Phase::Commit, counters @ FromRank::Counters { epoch, .. }) if this(epoch) => {
                round.count(process, counters);
            }
            (Phase::Weigh, FromRank::Weighed { epoch }) if this(epoch) => {}
            (Phase::Drain, FromRank::Drained { epoch, stall }) if this(epoch) => {
                round.stalls.push(RankStall {
                    rank: member.name(),
                    stall,
                });
                if round.order == SwitchOrder::MakeBeforeBreak {
                    member.epoch = round.epoch;
                }
            }
            (
                Phase::Release,
                FromRank::Released {
                    epoch,
                    release_us,
                    stall,
                },
            ) if this(epoch) => {
                let known = round
                    .stalls
                    .iter_mut()
                    .find(|known| known.rank.process == process);
                if let (Some(known), Some(stall)) = (known, stall) {
                    known.stall = stall;
                }
                round.slowest_release_us = round.slowest_release_us.max(release_us);
            }
            (Phase::Open, FromRank::Opened { epoch, stall }) if this(epoch) => {
                round.stalls.push(RankStall {
                    rank: member.name(),
                    stall,
                });
                member.epoch = round.epoch;
            }
            (Phase::Abort, FromRank::Aborted { epoch }) if this(epoch) => {}
            (_, FromRank::Stands { epoch, mut at }) if this(epoch) => {
                let ends = (0..=at.len().min(MAX_STAND)).rev();
                let end = ends.into_iter().find(|end| at.is_char_boundary(*end));
                at.truncate(end.unwrap_or(0));
                round.stands.insert(process, at);
                return;
            }
            // Of another epoch, repeated, or out of phase.
            _ => return,
        }
        round.waiting.remove(&process);
        self.advance_if_complete(effects);
    }

    pub(super) fn advance_if_complete(&mut self, effects: &mut Vec<Effect>) {
        let Some(round) = &mut self.round else { return };
        if !round.waiting.is_empty() {
            return;
        }
        let epoch = round.epoch;
        match round.phase {
            Phase::Prepare => self.enter(Phase::WireUp, effects),
            Phase::WireUp => {
                let next = if round.held {
                    Phase::Open
                } else {
                    Phase::Commit
                };
                let ranks = self.roster.members.len();
                self.announce(Outcome::Voted { epoch, ranks }, effects);
                self.enter(next, effects);
            }
            Phase::Commit if round.is_tight() => self.enter(Phase::Weigh, effects),
            Phase::Commit | Phase::Weigh => self.enter(Phase::Drain, effects),
            Phase::Drain => {
                let order = round.order;
                if !round.barrier {
                    let stalls = round.stalls.clone();
                    self.announce(Outcome::Committed { epoch, stalls }, effects);
                }
                self.enter_release(order, effects);
            }
            Phase::Release => {
                let slowest_us = round.slowest_release_us;
                if round.barrier {
                    // Only now is it known how long the gates stayed closed.
                    let stalls = round.stalls.clone();
                    self.announce(Outcome::Committed { epoch, stalls }, effects);
                }
                let Some(round) = &mut self.round else { return };
                match round.order {
                    SwitchOrder::MakeBeforeBreak => {
                        self.announce(Outcome::Released { epoch, slowest_us }, effects);
                        self.end(ToRank::Release { epoch }, effects);
                    }
                    SwitchOrder::BreakBeforeMake => {
                        round.held = true;
                        self.announce(Outcome::Held { epoch, slowest_us }, effects);
                        self.enter(Phase::Held, effects);
                    }
                }
            }
            Phase::Open => {
                let stalls = std::mem::take(&mut round.stalls);
                self.announce(Outcome::Opened { epoch, stalls }, effects);
                self.make_current(effects);
                self.end(ToRank::Open { epoch }, effects);
            }
            Phase::Abort => self.finish_abort(effects),
            Phase::Held => {}
        }
    }

    /// The old epoch is over: everything sent in it has arrived.
    pub(super) fn enter_release(&mut self, order: SwitchOrder, effects: &mut Vec<Effect>) {
        match order {
            SwitchOrder::MakeBeforeBreak => self.make_current(effects),
            SwitchOrder::BreakBeforeMake => {
                // The closing epoch's; a rank cannot leave again before the gates open.
                self.roster.forget_departed_before(self.last_used);
            }
        }
        self.enter(Phase::Release, effects);
        if order == SwitchOrder::MakeBeforeBreak && self.round.is_some() {
            self.welcome_parked(effects);
        }
    }

    /// Makes the round's epoch, interconnect and addresses those of the gang.
    pub(super) fn make_current(&mut self, effects: &mut Vec<Effect>) {
        let Some(round) = &mut self.round else { return };
        self.epoch = round.epoch;
        self.interconnect = round.interconnect.clone();
        self.table = std::mem::take(&mut round.published);
        self.table
            .retain(|process| self.roster.members.contains_key(&process));
        self.roster.forget_departed_before(self.epoch);
        effects.extend(self.roster.guests.iter().map(|guest| self.current(guest)));
    }

    /// The round is over; `last` is what its ranks were told last.
    fn end(&mut self, last: ToRank, effects: &mut Vec<Effect>) {
        self.round = None;
        self.last = Some(last);
        self.welcome_parked(effects);
    }

    pub(super) fn welcome_parked(&mut self, effects: &mut Vec<Effect>) {
        for (guest, join) in std::mem::take(&mut self.roster.parked) {
            self.welcome(&guest, join, effects);
        }
    }

    /// Delivers an outcome unless the round's terminal one is out already.
    fn announce(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(round) = &mut self.round else { return };
        if !round.reported {
            round.reported = outcome.is_terminal();
            effects.push(Effect::Outcome(outcome));
        }
    }

    pub(super) fn report_failure(&mut self, reason: Reason, effects: &mut Vec<Effect>) {
        if let Some(epoch) = self.round.as_ref().map(|round| round.epoch) {
            self.announce(Outcome::Failed { epoch, reason }, effects);
        }
    }

    /// Tells all members to forget the round; its outcome follows when they have.
    pub(super) fn abandon(&mut self, abort: Abort, effects: &mut Vec<Effect>) {
        if let Some(round) = &mut self.round {
            round.abort = Some(abort);
            self.enter(Phase::Abort, effects);
        }
    }

    fn finish_abort(&mut self, effects: &mut Vec<Effect>) {
        let Some(Round {
            epoch,
            held,
            abort: Some(abort),
            ..
        }) = &mut self.round
        else {
            return;
        };
        let (epoch, held) = (*epoch, *held);
        let outcome = match std::mem::replace(abort, Abort::Retry(Reason::Cancelled)) {
            Abort::Retry(reason) => Outcome::Aborted {
                epoch,
                held,
                reason,
            },
            Abort::Lost(reason) => Outcome::Failed { epoch, reason },
        };
        self.announce(outcome, effects);
        if held {
            self.enter(Phase::Held, effects);
        } else {
            self.end(ToRank::Abort { epoch }, effects);
        }
    }

    /// A member's process ended without leaving.
    pub(super) fn rank_gone(&mut self, process: ProcId, effects: &mut Vec<Effect>) {
        let Some(member) = self.remove(process) else {
            return;
        };
        let rank = member.name();
        match self.phase() {
            None | Some((_, Phase::Held)) => {
                effects.push(Effect::Outcome(Outcome::RankDied { rank }));
            }
            Some((_, phase)) => self.lose(process, Reason::Died { rank, phase }, effects),
        }
    }

    /// Nobody is to reach it any more.
    pub(super) fn remove(&mut self, process: ProcId) -> Option<Member> {
        let member = self.roster.members.remove(&process)?;
        self.table.retain(|other| other != process);
        Some(member)
    }

    /// A former member, which may have left, is not waited for. While nobody has changed over the
    /// switch is undone for `reason`, to be tried without it.
    pub(super) fn go_without(
        &mut self,
        process: ProcId,
        reason: Reason,
        effects: &mut Vec<Effect>,
    ) {
        let Some(round) = &mut self.round else { return };
        round.waiting.remove(&process);
        if round.can_abort() {
            self.abandon(Abort::Retry(reason), effects);
        } else {
            self.advance_if_complete(effects);
        }
    }

    fn lose(&mut self, process: ProcId, reason: Reason, effects: &mut Vec<Effect>) {
        let Some(round) = &mut self.round else { return };
        round.waiting.remove(&process);
        if round.can_abort() {
            self.abandon(Abort::Lost(reason), effects);
        } else if round.phase == Phase::Abort {
            if let Some(abort @ Abort::Retry(_)) = &mut round.abort {
                *abort = Abort::Lost(reason);
            }
            self.advance_if_complete(effects);
        } else {
            self.report_failure(reason, effects);
            self.advance_if_complete(effects);
        }
    }
}

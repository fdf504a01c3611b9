//! An agent that begins anew: what it had heard of the round, and what its ranks had said to it, may
//! be lost. Its ranks join again through it, and are asked again where that is needed; those that
//! do not come have ended, and their farewell or the news of their death was lost, too.

use std::time::Duration;

use super::outcome::{Effect, GuestId, Phase, Reason};
use super::roster::Member;
use super::round::Abort;
use super::{Gang, Round};
use crate::agent::{Recipient, ToAgent};
use crate::ids::{Epoch, ProcId};
use crate::rank::{SwitchOrder, ToRank};
use crate::share::{Wants, share};

/// How long a driver waits for members that an agent which began anew has not heard of: a living
/// rank looks for its agent every second.
pub const ABSENCE: Duration = Duration::from_secs(20);

impl Gang {
    /// Since when the switch waits for members whose agent has begun anew and that have not come
    /// back, by the clock of a driver that knew of it since `known`. After [`ABSENCE`] of this,
    /// [`Gang::give_up_absent`].
    pub fn absence<T>(&self, known: Option<T>, now: impl FnOnce() -> T) -> Option<T> {
        self.awaits_absent().then(|| known.unwrap_or_else(now))
    }

    /// Whether it does.
    pub fn awaits_absent(&self) -> bool {
        let absent = |process: &ProcId| self.roster.members.get(process).is_some_and(|m| m.absent);
        let mut rounds = self.round.iter();
        rounds.any(|round| round.waiting.iter().any(absent))
    }

    /// They will not come back. While nobody has changed over the switch is undone, to be tried
    /// without them: who has left must not end it. One that stood still, or was past that point,
    /// cannot have left: it is dead.
    pub fn give_up_absent(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let members = self.roster.members.iter();
        let absent = members.filter(|(_, member)| member.absent);
        for process in absent.map(|(process, _)| *process).collect::<Vec<_>>() {
            let undoable =
                |round: &&Round| !round.held && (round.can_abort() || round.phase == Phase::Abort);
            match self
                .round
                .as_ref()
                .filter(undoable)
                .map(|round| round.phase)
            {
                Some(phase) => {
                    if let Some(Member { guest, .. }) = self.remove(process) {
                        let reason = Reason::AgentLost { guest, phase };
                        self.go_without(process, reason, &mut effects);
                    }
                }
                None => self.rank_gone(process, &mut effects),
            }
        }
        effects
    }

    /// The agent has forgotten its part in the round. `newcomers`: it also speaks for ranks that
    /// nobody here knew, whose messages were not counted.
    pub(super) fn agent_restarted(
        &mut self,
        guest: &GuestId,
        newcomers: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(round) = &self.round else { return };
        let phase = round.phase;
        let guest = guest.clone();
        let reason = Reason::AgentLost { guest, phase };
        match phase {
            Phase::Prepare | Phase::WireUp | Phase::Commit | Phase::Weigh => {
                self.abandon(Abort::Retry(reason), effects);
            }
            // Its ranks may not have heard of it: say it again.
            Phase::Abort => self.enter(Phase::Abort, effects),
            Phase::Drain if newcomers => self.report_failure(reason, effects),
            // Its ranks have heard the request, or else never will: see `catch_up`.
            Phase::Drain | Phase::Release | Phase::Open | Phase::Held => {}
        }
    }

    /// A member is back, through an agent that does not know of the round, past the point of
    /// abort. The epoch it runs in says what it has done meanwhile; where that does not tell, it is
    /// asked again.
    pub(super) fn catch_up(&mut self, process: ProcId, runs_in: Epoch, effects: &mut Vec<Effect>) {
        let Some(member) = self.roster.members.get_mut(&process) else {
            return;
        };
        let Some(round) = &mut self.round else { return };
        if !round.waiting.contains(&process) {
            return;
        }
        let there = runs_in == round.epoch;
        match (round.phase, round.order) {
            (Phase::Drain, SwitchOrder::MakeBeforeBreak) | (Phase::Open, _) if there => {
                member.epoch = round.epoch;
            }
            // It lets go of the old transport without being told.
            (Phase::Release, SwitchOrder::MakeBeforeBreak) if there => {}
            (Phase::Release, SwitchOrder::MakeBeforeBreak) if !round.barrier => {
                let guest = member.guest.clone();
                let reason = Reason::AgentLost {
                    guest,
                    phase: round.phase,
                };
                self.report_failure(reason, effects);
                return;
            }
            // It stands still, and waits for the request or has carried it out: that, or its answer,
            // may have been lost with the agent. So where all wait for each other to have drained.
            // Held, it is in the epoch before, however far it came.
            (Phase::Drain | Phase::Release | Phase::Open, _) => {
                let guest = member.guest.clone();
                effects.extend(self.ask_again(&guest, process));
                return;
            }
            (
                Phase::Prepare
                | Phase::WireUp
                | Phase::Commit
                | Phase::Weigh
                | Phase::Held
                | Phase::Abort,
                _,
            ) => return,
        }
        round.waiting.remove(&process);
        self.advance_if_complete(effects);
    }

    /// To one rank, what all of its guest were asked last.
    fn ask_again(&self, guest: &GuestId, process: ProcId) -> Option<Effect> {
        let mut all = self.requests().into_iter();
        let asked = all.find_map(|effect| match effect {
            Effect::Send {
                guest: to,
                message: ToAgent::Ranks(said),
            } if to == *guest => said.into_iter().next(),
            Effect::Send { .. } | Effect::Outcome(_) => None,
        });
        let (_, message) = asked?;
        let message = share(&message, process, &Wants::NOTHING).unwrap_or(message);
        Some(Effect::Send {
            guest: guest.clone(),
            message: ToAgent::Ranks(vec![(Recipient::One(process), message)]),
        })
    }

    /// A member that joined again through a restarted agent may have missed the abort.
    pub(super) fn repeat_abort(&self, guest: &GuestId, process: ProcId, effects: &mut Vec<Effect>) {
        if let Some((epoch, Phase::Abort)) = self.phase()
            && self.is_awaited(process)
        {
            let abort = (Recipient::One(process), ToRank::Abort { epoch });
            effects.push(Effect::Send {
                guest: guest.clone(),
                message: ToAgent::Ranks(vec![abort]),
            });
        }
    }
}

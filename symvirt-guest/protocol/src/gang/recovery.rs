//! A coordinator that has only just begun, or whose channel to an agent was begun anew: what the
//! agents remember decides how the switch ends that an earlier coordinator left half-way.
//!
//! ```text
//!   furthest that any guest was told          what becomes of it
//!   ─────────────────────────────────────────────────────────────────────────────
//!   Abort                                     Abort to all
//!   Prepare, Peers, Commit, Weigh             Abort to all: nobody has changed over
//!   Drain                                     the totals anew, from all counters; on to the end
//!   Release                                   Release to all; on to the end, or to the hold
//!   (hold) Held, RebuildPrepare, RebuildPeers Abort to all: held
//!   (hold) Open                               Open to all
//! ```
//!
//! Nobody is told the next thing before all have answered the last. So where a guest is silent
//! that the driver expects, the others may still show what it can have been told at most; where
//! they do not, nothing is guessed: the ranks stand where they stand, until it is heard or known
//! to be lost.

use std::collections::BTreeSet;

use super::outcome::{Effect, GuestId, Phase, RankName, Reason};
use super::round::Abort;
use super::{Gang, Round, Table};
use crate::agent::{Recipient, ToAgent};
use crate::ids::Epoch;
use crate::memory::{Memory, RoundMemory, Stage};
use crate::rank::{SwitchOrder, ToRank};

/// What an earlier coordinator began depends on guests that were not heard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "switch {epoch} was left by its coordinator in {stage:?}, and how it ends depends on {}, not \
     heard yet; ranks stand where they are until then",
    list(silent)
)]
pub struct Unsettled {
    /// The switch.
    pub epoch: Epoch,
    /// The furthest that any rank is known to have been told.
    pub stage: Stage,
    /// Who is to be heard first.
    pub silent: Vec<GuestId>,
}

fn list(guests: &[GuestId]) -> String {
    let names: Vec<_> = guests.iter().map(GuestId::to_string).collect();
    names.join(", ")
}

/// What was left half-way, from all memories of it.
struct Found {
    epoch: Epoch,
    order: SwitchOrder,
    furthest: Stage,
    least: Stage,
    aborted: bool,
}

impl Found {
    /// Whether a guest that is silent may have been told what decides the end.
    fn depends_on_silent(&self) -> bool {
        match self.furthest {
            _ if self.aborted => false,
            Stage::Prepare | Stage::Peers | Stage::Commit | Stage::Weigh => {
                self.least >= Stage::Commit
            }
            Stage::Drain => true,
            Stage::RebuildPeers => self.least == Stage::RebuildPeers,
            Stage::Release | Stage::Held | Stage::RebuildPrepare | Stage::Open => false,
        }
    }
}

impl Gang {
    /// Whether guests remember a switch that this coordinator knows nothing of: nothing else can
    /// begin before [`Gang::recover`] has brought it to its end.
    pub fn is_unsettled(&self) -> bool {
        self.round.is_none() && self.memories.values().any(RoundMemory::is_pending)
    }

    /// Brings to its end what an earlier coordinator began, on `expected`, the guests of the gang.
    /// The switch is under way again then, and ends in an outcome; without one
    /// nothing was to be settled.
    ///
    /// # Errors
    /// [`Unsettled`]; nothing has changed, and it can be tried again.
    pub fn recover(&mut self, expected: &[GuestId]) -> Result<Vec<Effect>, Unsettled> {
        let mut effects = Vec::new();
        if self.round.is_some() {
            return Ok(effects);
        }
        let unheard = |guest: &&GuestId| !self.roster.guests.contains(*guest);
        let silent: Vec<_> = expected.iter().filter(unheard).cloned().collect();
        if let Some(found) = self.found() {
            if !silent.is_empty() && found.depends_on_silent() {
                return Err(Unsettled {
                    epoch: found.epoch,
                    stage: found.furthest,
                    silent,
                });
            }
            let memories = std::mem::take(&mut self.memories);
            let rounds = memories.into_iter();
            let rounds = rounds.filter(|(_, round)| round.epoch == found.epoch);
            self.settle(&found, rounds.collect(), &mut effects);
        } else if silent.is_empty() {
            self.memories.clear();
            self.welcome_parked(&mut effects);
        }
        self.meeting &= !silent.is_empty();
        Ok(effects)
    }

    fn found(&self) -> Option<Found> {
        let rounds = || self.memories.values();
        let epoch = rounds()
            .filter(|round| round.is_pending())
            .map(|round| round.epoch)
            .max()?;
        let rounds = || rounds().filter(|round| round.epoch == epoch);
        let breaks = |round: &RoundMemory| round.order == SwitchOrder::BreakBeforeMake;
        Some(Found {
            epoch,
            order: if rounds().any(breaks) {
                SwitchOrder::BreakBeforeMake
            } else {
                SwitchOrder::MakeBeforeBreak
            },
            furthest: rounds().map(|round| round.stage).max()?,
            least: rounds().map(|round| round.stage).min()?,
            aborted: rounds().any(|round| round.aborted),
        })
    }

    fn settle(
        &mut self,
        found: &Found,
        memories: Vec<(GuestId, RoundMemory)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut aims = memories.iter().filter_map(|(_, m)| m.interconnect.clone());
        let aim = aims
            .next_back()
            .unwrap_or_else(|| self.interconnect.clone());
        let mut round = Round::new(found.epoch, aim, found.order);
        let mut died = Vec::new();
        let mut known = BTreeSet::new();
        for (guest, memory) in memories {
            let lost = memory.died.into_iter();
            died.extend(lost.map(|join| RankName::of(&guest, &join)));
            for said in memory.said {
                let process = said.process;
                if self.roster.is_elsewhere(process, &guest) {
                    continue;
                }
                round.published.insert(process, said.blobs);
                if let Some(counters) = said.counters {
                    round.count(process, counters);
                }
                known.insert(process);
            }
        }
        let phase = match found.furthest {
            _ if found.aborted => Phase::Abort,
            Stage::Prepare | Stage::Peers | Stage::Commit | Stage::Weigh => Phase::Abort,
            Stage::Drain => Phase::Drain,
            Stage::Release => Phase::Release,
            Stage::Held | Stage::RebuildPrepare | Stage::RebuildPeers => {
                round.held = true;
                Phase::Abort
            }
            Stage::Open => {
                round.held = true;
                Phase::Open
            }
        };
        // Who takes part in something is held, or has its gate closed: an earlier death counts.
        let reason = died
            .into_iter()
            .next()
            .map(|rank| Reason::Died { rank, phase });
        let tight = round.is_tight();
        round.phase = phase;
        self.round = Some(round);
        self.last_used = self.last_used.max(found.epoch);
        match phase {
            Phase::Abort => {
                let abort = reason.map_or(Abort::Retry(Reason::CoordinatorLost), Abort::Lost);
                self.abandon(abort, effects);
                return;
            }
            Phase::Drain => {
                if let Some(round) = self.round.as_ref().filter(|_| tight) {
                    effects.extend(self.totals(round));
                }
            }
            _ => {}
        }
        if let Some(reason) = reason {
            self.report_failure(reason, effects);
        }
        if phase == Phase::Release {
            self.enter_release(found.order, effects);
        } else {
            self.enter(phase, effects);
        }
        // Those whose agent has lost its memory, too, or that began when the gates were open again.
        let members = self.roster.members.iter();
        let strange = members.filter(|(process, _)| !known.contains(process));
        let strange: Vec<_> = strange.map(|(p, member)| (*p, member.epoch)).collect();
        for (process, epoch) in strange {
            self.catch_up(process, epoch, effects);
        }
    }

    /// At the beginning of a session: what the agent of a guest remembers. Returns how far its ranks
    /// were led in the switch under way, if they were in it.
    pub(super) fn remind(
        &mut self,
        guest: &GuestId,
        memory: Memory,
        effects: &mut Vec<Effect>,
    ) -> Option<Stage> {
        let Memory {
            current,
            table,
            departed,
            left,
            round,
        } = memory;
        self.roster.replace_departed(guest, departed);
        for process in left {
            self.roster.remember_left(process);
        }
        let told = current.as_ref().map(|(epoch, _)| *epoch);
        if let Some((epoch, interconnect)) = current
            && self.round.is_none()
            && epoch >= self.epoch
        {
            if epoch > self.epoch {
                self.table = Table::default();
            }
            self.epoch = epoch;
            self.last_used = self.last_used.max(epoch);
            self.interconnect = interconnect;
        }
        if told == Some(self.epoch) {
            for blob in table {
                let process = blob.object.process;
                if !self.roster.is_elsewhere(process, guest) {
                    self.table.insert_new(process, vec![blob]);
                }
            }
        }
        let mut memory = round?;
        if told == Some(memory.epoch) && memory.stage == Stage::Drain {
            // That is told when all have drained.
            memory.stage = Stage::Release;
        }
        self.last_used = self.last_used.max(memory.epoch);
        let tell = |message: ToAgent| Effect::Send {
            guest: guest.clone(),
            message,
        };
        if let Some(round) = &mut self.round {
            if round.epoch == memory.epoch {
                for said in memory.said {
                    if !self.roster.is_elsewhere(said.process, guest) {
                        round.published.insert_new(said.process, said.blobs);
                    }
                }
                return Some(memory.stage);
            }
        } else if let Some(last) = &self.last
            && last.epoch() == Some(memory.epoch)
        {
            // The gang has gone on; these ranks may have missed the last word.
            if memory.is_pending() {
                let last = (Recipient::All, last.clone());
                effects.push(tell(ToAgent::Ranks(vec![last])));
            }
        } else {
            self.memories.insert(guest.clone(), memory);
        }
        None
    }

    /// To the agent of a guest, whose ranks are known, what the last coordinator may not have told
    /// them of the switch under way; `stage` is what it had.
    pub(super) fn repeat(&self, guest: &GuestId, stage: Stage) -> Option<Effect> {
        let round = self.round.as_ref()?;
        match round.phase {
            // What it was told counts for nothing if it cannot have heard the last.
            Phase::Prepare | Phase::WireUp | Phase::Commit | Phase::Weigh => None,
            Phase::Held if stage > Stage::Release => {
                let abort = ToRank::Abort { epoch: round.epoch };
                Some(Effect::Send {
                    guest: guest.clone(),
                    message: ToAgent::Ranks(vec![(Recipient::All, abort)]),
                })
            }
            Phase::Drain | Phase::Release | Phase::Open | Phase::Abort | Phase::Held => {
                let mut all = self.requests().into_iter();
                all.find(|it| matches!(it, Effect::Send { guest: to, .. } if to == guest))
            }
        }
    }
}

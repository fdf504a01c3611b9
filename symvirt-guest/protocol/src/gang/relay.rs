//! Matches of synchronous messages, on their way from receivers to senders.

use std::collections::BTreeMap;

use super::Gang;
use super::outcome::Effect;
use crate::agent::{Recipient, ToAgent};
use crate::ids::ProcId;
use crate::rank::{SyncSend, ToRank};

/// Most matches that wait for their sender's guest. A gang that is whole has none.
const MAX_UNRELAYED: usize = 1 << 16;

impl Gang {
    /// Tells the senders of synchronous messages that a receiver has matched them: each of them
    /// once, however many messages it were. Those of senders whose guest was not heard yet wait
    /// for it.
    pub(super) fn relay_matches(
        &mut self,
        syncs: impl IntoIterator<Item = SyncSend>,
        effects: &mut Vec<Effect>,
    ) {
        let mut known = Vec::new();
        for sync in syncs {
            if self.roster.members.contains_key(&sync.sender) {
                known.push(sync);
            } else if self.unrelayed.len() < MAX_UNRELAYED {
                self.unrelayed.push(sync);
            }
        }
        self.relayed.remember(&known);
        self.tell_matched(&known, effects);
    }

    pub(super) fn tell_matched(&self, syncs: &[SyncSend], effects: &mut Vec<Effect>) {
        let mut matched: BTreeMap<ProcId, Vec<u64>> = BTreeMap::new();
        for sync in syncs {
            matched.entry(sync.sender).or_default().push(sync.id);
        }
        for (process, ids) in matched {
            let Some(sender) = self.roster.members.get(&process) else {
                continue;
            };
            effects.push(Effect::Send {
                guest: sender.guest.clone(),
                message: ToAgent::Ranks(vec![(Recipient::One(process), ToRank::Matched { ids })]),
            });
        }
    }
}

//! The matches of synchronous sends that were told last, by whoever may have to tell them again:
//! receivers and coordinators if an agent dies with what was under way, agents if a coordinator does.
//! Told twice they do no harm: a sender has forgotten what it knows to be matched.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ProcId;
use crate::rank::{FromRank, SyncSend};

/// Most that are remembered, some megabytes. They reach their senders within milliseconds, so the
/// oldest of so many have.
const MOST: usize = 1 << 16;

/// The last matches, the oldest first.
#[derive(Debug, Default)]
pub struct Matches(VecDeque<SyncSend>);

impl Matches {
    /// None yet.
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Their receivers have told them.
    pub fn remember(&mut self, syncs: &[SyncSend]) {
        self.0.extend(syncs);
        let over = self.0.len().saturating_sub(MOST);
        self.0.drain(..over);
    }

    /// All of them.
    pub fn all(&self) -> Vec<SyncSend> {
        self.0.iter().copied().collect()
    }

    /// Those that concern one sender.
    pub fn of_sender(&self, sender: ProcId) -> Vec<SyncSend> {
        let of_sender = |sync: &&SyncSend| sync.sender == sender;
        self.0.iter().filter(of_sender).copied().collect()
    }

    /// All of them, as each receiver has told its own.
    pub fn by_receiver(&self) -> impl Iterator<Item = (ProcId, FromRank)> + use<> {
        let mut told: BTreeMap<ProcId, Vec<SyncSend>> = BTreeMap::new();
        for sync in &self.0 {
            told.entry(sync.worker.process).or_default().push(*sync);
        }
        told.into_iter()
            .map(|(receiver, syncs)| (receiver, FromRank::Matched { syncs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorkerId;

    #[test]
    fn the_last_are_kept_and_told_again_by_who_told_them() {
        let mut matches = Matches::default();
        let sync = |receiver, id| SyncSend {
            sender: ProcId(9),
            id,
            worker: WorkerId {
                process: ProcId(receiver),
                index: 0,
            },
            tag: 0,
        };
        matches.remember(&[sync(8, 1)]);
        let many: Vec<_> = (0..MOST as u64).map(|id| sync(7, id)).collect();
        matches.remember(&many);
        assert_eq!(matches.of_sender(ProcId(9)), many);
        assert_eq!(matches.of_sender(ProcId(7)), []);
        let told: Vec<_> = matches.by_receiver().collect();
        assert_eq!(told, [(ProcId(7), FromRank::Matched { syncs: many })]);
    }
}

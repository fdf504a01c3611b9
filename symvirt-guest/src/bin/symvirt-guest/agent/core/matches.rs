//! The matches of synchronous sends that ranks of this guest have told, for a coordinator that knows
//! nothing of what was said before. Told twice they do no harm: a sender has forgotten what it knows
//! to be matched.

use std::collections::{BTreeMap, VecDeque};

use symvirt_protocol::ids::ProcId;
use symvirt_protocol::rank::{FromRank, SyncSend};

/// Most that are remembered, some megabytes. A coordinator relays them within milliseconds, so the
/// oldest of so many have been.
const MOST: usize = 1 << 16;

/// The last matches, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Matches(VecDeque<(ProcId, SyncSend)>);

impl Matches {
    /// `receiver` has told them.
    pub fn remember(&mut self, receiver: ProcId, syncs: &[SyncSend]) {
        self.0.extend(syncs.iter().map(|sync| (receiver, *sync)));
        let over = self.0.len().saturating_sub(MOST);
        self.0.drain(..over);
    }

    /// All of them, as they were told.
    pub fn all(&self) -> impl Iterator<Item = (ProcId, FromRank)> + use<> {
        let mut told: BTreeMap<ProcId, Vec<SyncSend>> = BTreeMap::new();
        for (receiver, sync) in &self.0 {
            told.entry(*receiver).or_default().push(*sync);
        }
        told.into_iter()
            .map(|(receiver, syncs)| (receiver, FromRank::Matched { syncs }))
    }
}

#[cfg(test)]
mod tests {
    use symvirt_protocol::ids::WorkerId;

    use super::*;

    #[test]
    fn the_last_are_kept_and_told_again_by_who_told_them() {
        let mut matches = Matches::default();
        let (receiver, other) = (ProcId(7), ProcId(8));
        let worker = WorkerId {
            process: receiver,
            index: 0,
        };
        let sync = |id| SyncSend {
            sender: ProcId(9),
            id,
            worker,
            tag: 0,
        };
        matches.remember(other, &[sync(1)]);
        let many: Vec<_> = (0..MOST as u64).map(sync).collect();
        matches.remember(receiver, &many);
        let all: Vec<_> = matches.all().collect();
        assert_eq!(all, [(receiver, FromRank::Matched { syncs: many })]);
    }
}

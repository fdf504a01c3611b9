//! The conservation rules, held against what ranks really did.

use symvirt_protocol::agent::{Recipient, ToAgent};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::{SwitchOrder, ToRank, WorkerCount};

use super::{Rank, World, worker};

impl World {
    /// The rules: nothing is sent before every live member has earned it.
    pub(super) fn check(&self, message: &ToAgent) {
        let ToAgent::Ranks(messages) = message else {
            return;
        };
        for (recipient, message) in messages {
            let (epoch, need) = match message {
                ToRank::Peers { epoch, .. } => (*epoch, "published"),
                ToRank::Commit {
                    epoch,
                    order: SwitchOrder::MakeBeforeBreak,
                } => (*epoch, "ready"),
                ToRank::Expect { epoch, .. } => (*epoch, "counters"),
                ToRank::Proceed { epoch } => (*epoch, "weighed"),
                ToRank::Release { epoch } => (*epoch, "drained"),
                ToRank::Open { epoch } => (*epoch, "ready"),
                _ => continue,
            };
            match recipient {
                Recipient::All => {}
                Recipient::One(process) => assert!(
                    self.ranks[process].heard.contains(&"lost"),
                    "one table a guest, but to who may have missed it"
                ),
            }
            // Those being welcomed by the same step take no part; one that its agent had lost, and
            // that was given up, may be among them.
            // And who was welcomed by an earlier coordinator into the epoch has nothing to earn.
            let took_part = |rank: &Rank| {
                let began_there = rank.epoch == epoch && !rank.has_committed();
                rank.welcomed && !rank.heard.contains(&"lost") && !began_there
            };
            for rank in self
                .gang
                .ranks()
                .filter(|rank| took_part(&self.ranks[&rank.process]))
            {
                assert!(
                    self.answered.contains(&(rank.process, epoch, need)),
                    "{message:?} before {need} of {rank}"
                );
            }
        }
    }

    /// Atomics of two epochs must not meet.
    pub(super) fn check_all_drained(&self, epoch: Epoch) {
        let standing = |(process, rank): &(&ProcId, &Rank)| {
            rank.alive
                && rank.has_committed()
                && !self.answered.contains(&(**process, epoch, "drained"))
        };
        let late: Vec<_> = self.ranks.iter().filter(standing).map(|it| it.0).collect();
        assert!(
            late.is_empty(),
            "one opens in {epoch} before {late:?} drained"
        );
    }

    /// Everything that anybody sent to this rank in its closing epoch is announced, no more.
    pub(super) fn check_totals(&self, process: ProcId, closing: Epoch, totals: &[WorkerCount]) {
        let announced = totals.iter().find(|count| count.worker == worker(process));
        let announced = announced.map_or(0, |count| count.count);
        let left = self.departed.get(&(closing, process)).copied().unwrap_or(0);
        if self.restarted {
            return;
        }
        let members = self.ranks.values();
        let counted: u64 = members
            .filter(|rank| rank.alive || self.killed)
            .filter(|rank| rank.has_committed())
            .filter_map(|rank| rank.counted.get(&process))
            .sum();
        assert!(
            announced >= left && announced <= counted + left,
            "announced {announced}, counted {counted}, left {left}"
        );
        if !self.killed {
            assert_eq!(announced, counted + left, "totals of {process}");
        }
    }

    pub fn terminal_outcomes(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.is_terminal())
            .count()
    }
}

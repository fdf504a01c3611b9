//! What of a message to all ranks of a guest concerns each of them.
//!
//! ```text
//!   coordinator ── what the guest's ranks need, once ──► agent ── to each its share ──► ranks
//! ```
//!
//! A table of all ranks for each rank would grow with the square of their number.

use std::collections::BTreeSet;

use crate::ids::{MemoryId, ObjectId, ProcId};
use crate::rank::{ToRank, WorkerCount};

/// What a rank has asked for in [`FromRank::Published`](crate::rank::FromRank::Published).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wants(BTreeSet<ObjectId>);

impl Wants {
    /// Nothing at all.
    pub const NOTHING: Wants = Wants(BTreeSet::new());

    /// The workers that it greets, the memory that it opens.
    pub fn new(hellos: &[WorkerCount], opens: &[MemoryId]) -> Wants {
        let workers = hellos.iter().map(|hello| hello.worker);
        Wants(workers.chain(opens.iter().copied()).collect())
    }

    /// Adds what another rank of the guest wants.
    pub fn join(&mut self, other: &Wants) {
        self.0.extend(&other.0);
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = ObjectId> {
        self.0.iter().copied()
    }
}

/// A rank's share of a message to all ranks of its guest; `None` if all hear the same.
pub fn share(message: &ToRank, process: ProcId, wants: &Wants) -> Option<ToRank> {
    let own = |counts: &[WorkerCount]| -> Vec<WorkerCount> {
        let counts = counts.iter().copied();
        counts
            .filter(|count| count.worker.process == process)
            .collect()
    };
    match message {
        ToRank::Peers {
            epoch,
            table,
            hellos,
            gone,
        } => {
            let table = table.iter().filter(|blob| wants.0.contains(&blob.object));
            let gone = gone.iter().filter(|object| wants.0.contains(object));
            Some(ToRank::Peers {
                epoch: *epoch,
                table: table.cloned().collect(),
                hellos: own(hellos),
                gone: gone.copied().collect(),
            })
        }
        ToRank::Expect {
            epoch,
            totals,
            syncs,
            barrier,
            weigh,
        } => {
            let syncs = syncs.iter().filter(|sync| sync.worker.process == process);
            Some(ToRank::Expect {
                epoch: *epoch,
                totals: own(totals),
                syncs: syncs.copied().collect(),
                barrier: *barrier,
                weigh: *weigh,
            })
        }
        ToRank::Welcome(_)
        | ToRank::Prepare { .. }
        | ToRank::Commit { .. }
        | ToRank::Proceed { .. }
        | ToRank::Matched { .. }
        | ToRank::SlowDown { .. }
        | ToRank::Release { .. }
        | ToRank::Open { .. }
        | ToRank::Abort { .. } => None,
    }
}

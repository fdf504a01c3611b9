//! A rank, as the library answers.

use std::collections::BTreeSet;

use symvirt_protocol::ids::{Epoch, ProcId, WorkerId};
use symvirt_protocol::rank::{FromRank, Stall, ToRank, WorkerCount};
use symvirt_protocol::share::Wants;

use super::{World, address, counts, worker};

impl World {
    pub(super) fn answer(
        &mut self,
        process: ProcId,
        epoch: Epoch,
        what: &'static str,
        message: FromRank,
    ) {
        self.answered.insert((process, epoch, what));
        self.say(process, message);
    }

    pub(super) fn rank_hears(&mut self, process: ProcId, message: ToRank) {
        let Some(rank) = self.ranks.get_mut(&process) else {
            return;
        };
        if !rank.alive {
            return;
        }
        self.ranks_volume.count(&message);
        match message {
            ToRank::Welcome(_) => rank.heard.push("welcome"),
            ToRank::Prepare { epoch, .. } => {
                rank.heard.push("prepare");
                if std::mem::replace(&mut rank.veto_next, false) {
                    self.say(
                        process,
                        FromRank::Veto {
                            epoch,
                            reason: "no device".into(),
                        },
                    );
                    return;
                }
                let greets = rank.greets.iter().map(|peer| WorkerCount {
                    worker: worker(*peer),
                    count: 1,
                });
                let hellos: Vec<WorkerCount> = greets.collect();
                rank.wants = Wants::new(&hellos, &[]);
                let message = FromRank::Published {
                    epoch,
                    blobs: vec![address(process)],
                    hellos,
                    opens: Vec::new(),
                };
                self.answer(process, epoch, "published", message);
            }
            ToRank::Peers {
                epoch,
                ref table,
                ref gone,
                ref hellos,
            } => {
                rank.heard.push("peers");
                let told: BTreeSet<WorkerId> = table.iter().map(|blob| blob.object).collect();
                let told = told.len() + gone.len();
                assert_eq!(
                    told,
                    rank.greets.len(),
                    "what it asked for, no more and no less"
                );
                let own = hellos.iter().all(|hello| hello.worker.process == process);
                assert!(own, "hellos of others: {hellos:?}");
                self.answer(process, epoch, "ready", FromRank::Ready { epoch });
            }
            ToRank::Commit { epoch, .. } => {
                rank.heard.push("commit");
                rank.held = true;
                rank.counted = rank.sent.clone();
                let (sent, atomics, load) = (counts(&rank.sent), rank.atomics, rank.load);
                self.answer(
                    process,
                    epoch,
                    "counters",
                    FromRank::Counters {
                        epoch,
                        sent,
                        syncs: Vec::new(),
                        late: Vec::new(),
                        atomics,
                        load,
                    },
                );
            }
            ToRank::Expect {
                epoch,
                totals,
                weigh: true,
                barrier,
                ..
            } if rank.epoch < epoch && !self.answered.contains(&(process, epoch, "drained")) => {
                rank.heard.push("weigh");
                rank.barrier = barrier;
                let (closing, overflows) = (rank.epoch, rank.overflows);
                self.check_totals(process, closing, &totals);
                if overflows {
                    let reason = "the spool is too small".into();
                    self.say(process, FromRank::Veto { epoch, reason });
                } else {
                    self.answer(process, epoch, "weighed", FromRank::Weighed { epoch });
                }
            }
            ToRank::Expect { epoch, .. } | ToRank::Proceed { epoch }
                if rank.epoch >= epoch || self.answered.contains(&(process, epoch, "drained")) =>
            {
                let stall = Stall::default();
                self.say(process, FromRank::Drained { epoch, stall });
            }
            ToRank::Expect { epoch, .. } | ToRank::Proceed { epoch } => {
                if let ToRank::Expect {
                    totals, barrier, ..
                } = &message
                {
                    rank.heard.push("expect");
                    rank.barrier = *barrier;
                    let closing = rank.epoch;
                    self.check_totals(process, closing, totals);
                } else {
                    rank.heard.push("proceed");
                }
                let stall = Stall::default();
                self.answer(
                    process,
                    epoch,
                    "drained",
                    FromRank::Drained { epoch, stall },
                );
                self.rank_drained(process, epoch);
            }
            ToRank::Release { epoch } => {
                rank.heard.push("release");
                let message = FromRank::Released {
                    epoch,
                    release_us: 7,
                    stall: rank.atomics.then(|| Stall {
                        total_us: 99,
                        ..Stall::default()
                    }),
                };
                if rank.held && !rank.decided && std::mem::take(&mut rank.barrier) {
                    self.check_all_drained(epoch);
                    self.change_over(process, epoch);
                }
                self.answer(process, epoch, "released", message);
            }
            ToRank::Open { epoch } if rank.epoch == epoch => {
                let stall = Stall::default();
                self.say(process, FromRank::Opened { epoch, stall });
            }
            ToRank::Open { epoch } => {
                rank.heard.push("open");
                rank.held = false;
                rank.decided = false;
                rank.epoch = epoch;
                rank.sent.clear();
                let stall = Stall::default();
                self.answer(process, epoch, "opened", FromRank::Opened { epoch, stall });
            }
            ToRank::Matched { .. } => rank.heard.push("matched"),
            ToRank::SlowDown { .. } => {}
            ToRank::Abort { epoch } => {
                rank.heard.push("abort");
                assert!(
                    rank.epoch < epoch || self.restarted,
                    "{process} is to forget what it runs on"
                );
                assert!(
                    rank.counted.is_empty() || rank.heard.contains(&"commit"),
                    "aborted something that was never begun"
                );
                let released = self.answered.contains(&(process, epoch, "released"));
                rank.held = released;
                rank.decided = released;
                self.answered.retain(|(who, when, what)| {
                    (*who, *when) != (process, epoch) || matches!(*what, "released" | "drained")
                });
                self.say(process, FromRank::Aborted { epoch });
            }
        }
    }

    /// Whether this switch makes before it breaks is what the commit said; a held rank opens later.
    pub(super) fn rank_drained(&mut self, process: ProcId, epoch: Epoch) {
        let prepared = self.answered.contains(&(process, epoch, "ready"));
        let Some(rank) = self.ranks.get_mut(&process) else {
            return;
        };
        rank.decided = !prepared;
        if prepared && !rank.barrier {
            self.change_over(process, epoch);
        }
    }

    pub(super) fn change_over(&mut self, process: ProcId, epoch: Epoch) {
        if let Some(rank) = self.ranks.get_mut(&process) {
            rank.held = false;
            rank.epoch = epoch;
            rank.sent.clear();
        }
    }
}

//! The builder: what takes long and may go on beside the job.
//!
//! It has the priority of the job. At a lower one it costs the job as much processor time, only for
//! longer: where ranks spin on all processors, as they do, it got a quarter instead of half of one
//! (nice 5), and a switch took two to three times as long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use symvirt_protocol::ids::{Epoch, ObjectId};
use symvirt_protocol::rank::{Blob, FromRank, Stall, SwitchOrder, WorkerCount};
use symvirt_protocol::transport::Transports;

use super::Shared;
use super::side::Side;
use crate::object::lock;
use crate::process::participants::{self, Proposal};
use crate::process::{gang, holds, round};

/// What the controller asks for.
pub enum Job {
    /// Build and publish.
    Build {
        epoch: Epoch,
        transports: Transports,
        held: bool,
    },
    /// Make endpoints, exchange hellos, vote.
    WireUp {
        epoch: Epoch,
        table: Vec<Blob>,
        hellos: Vec<WorkerCount>,
        gone: Vec<ObjectId>,
    },
    /// Destroy what was prepared.
    Abandon { epoch: Epoch, held: bool },
    /// Say again what was said, after all that is under way here.
    Repeat(FromRank),
    /// Destroy the old side.
    Release {
        epoch: Epoch,
        order: SwitchOrder,
        old: Side,
        /// How long the application was stopped, if that was not told yet.
        stall: Option<Stall>,
    },
}

/// How long an abandoned side is kept; see [`Builder::let_die`].
const LINGER: Duration = Duration::from_secs(1);
/// Nothing is prepared: wake up only to see that nobody forgot us.
const IDLE: Duration = Duration::from_secs(3600);

pub struct Builder {
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    /// An abandoned side, and when it may go.
    dying: Option<(Side, Instant)>,
}

impl Builder {
    pub fn new(shared: Arc<Shared>, queue: Receiver<Job>) -> Builder {
        Builder {
            shared,
            queue,
            dying: None,
        }
    }

    /// Works until the controller ends.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            let wait = self
                .dying
                .as_ref()
                .map_or(IDLE, |(_, end)| end.saturating_duration_since(now));
            self.bury(false);
            match self.queue.recv_timeout(wait) {
                Ok(job) => self.work(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let unused = lock(&self.shared.prepared).take();
        if let Some(side) = unused {
            self.let_die(side);
        }
        if let Some((_, end)) = &self.dying {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        self.bury(true);
    }

    /// Keeps an abandoned side for a while, without driving it. The others hear of the
    /// abandonment a little later or earlier; one that still connects to a side that is gone
    /// meets a refused connection, on which UCX may abort the process.
    fn let_die(&mut self, mut side: Side) {
        side.settle();
        self.bury(true);
        self.dying = Some((side, Instant::now() + LINGER));
    }

    /// Destroys the abandoned side, when its time has come or `now`.
    fn bury(&mut self, now: bool) {
        let is_due = |(_, end): &mut (Side, Instant)| now || Instant::now() >= *end;
        if let Some((side, _)) = self.dying.take_if(is_due) {
            side.destroy();
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Build {
                epoch,
                transports,
                held,
            } => self.build(epoch, transports, held),
            Job::WireUp {
                epoch,
                table,
                hellos,
                gone,
            } => self.wire_up(epoch, table, &hellos, &gone),
            Job::Abandon { epoch, held } => self.abandon(epoch, held),
            Job::Repeat(answer) => self.shared.send(&answer),
            Job::Release {
                epoch,
                order,
                old,
                stall,
            } => self.release(epoch, order, old, stall),
        }
    }

    fn veto(&self, epoch: Epoch, reason: String) {
        self.shared.send(&FromRank::Veto { epoch, reason });
    }

    fn build(&mut self, epoch: Epoch, transports: Transports, held: bool) {
        // A new round begins only when all have answered the abandonment of the last.
        self.bury(true);
        let proposal = Proposal {
            epoch,
            hold: false,
            transports: Some(&transports),
        };
        if !held && let Err(refusal) = participants::prepare(proposal) {
            return self.veto(epoch, refusal);
        }
        let published = Side::build(epoch, transports).and_then(|mut side| match side.publish() {
            Ok(blobs) => Ok((side, blobs)),
            Err(error) => {
                side.destroy();
                Err(error)
            }
        });
        match published {
            Ok((side, blobs)) => {
                let (hellos, opens) = (side.hellos(), side.opens());
                *lock(&self.shared.prepared) = Some(side);
                self.shared.send(&FromRank::Published {
                    epoch,
                    blobs,
                    hellos,
                    opens,
                });
            }
            Err(error) => self.veto(epoch, error.to_string()),
        }
        if !held && !round::is_sound(epoch) {
            // A change came in between; its veto has been sent. The abandonment follows.
            crate::log::debug!("switch {epoch} is spoiled");
        }
    }

    fn wire_up(&self, epoch: Epoch, table: Vec<Blob>, hellos: &[WorkerCount], gone: &[ObjectId]) {
        let taken = lock(&self.shared.prepared).take();
        let Some(mut side) = taken.filter(|side| side.epoch == epoch) else {
            return self.veto(epoch, "nothing is prepared".to_owned());
        };
        let wired = side.wire_up(table, hellos, gone, &self.shared.abandoned);
        *lock(&self.shared.prepared) = Some(side);
        if let Err(error) = wired {
            return self.veto(epoch, error.to_string());
        }
        match holds::shut(|| self.shared.abandoned.load(Ordering::Acquire)) {
            Ok(()) => self.shared.send(&FromRank::Ready { epoch }),
            Err(Some(reason)) => self.veto(epoch, reason),
            // The abandonment is on the queue.
            Err(None) => {}
        }
    }

    fn abandon(&mut self, epoch: Epoch, held: bool) {
        let taken = lock(&self.shared.prepared).take();
        if let Some(side) = taken {
            self.let_die(side);
        }
        self.shared.abandoned.store(false, Ordering::Release);
        if !held {
            participants::abort(Proposal {
                epoch,
                hold: false,
                transports: None,
            });
            round::end();
        }
        self.shared.send(&FromRank::Aborted { epoch });
    }

    fn release(&self, epoch: Epoch, order: SwitchOrder, old: Side, stall: Option<Stall>) {
        let start = Instant::now();
        let hold = order == SwitchOrder::BreakBeforeMake;
        let transports = (!hold).then(gang::transports);
        let proposal = Proposal {
            epoch,
            hold,
            transports: transports.as_ref(),
        };
        participants::release(proposal);
        old.destroy();
        if !hold {
            participants::acquire(proposal);
            round::end();
        }
        let release_us = start.elapsed().as_micros() as u64;
        self.shared.send(&FromRank::Released {
            epoch,
            release_us,
            stall,
        });
    }
}

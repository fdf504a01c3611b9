//! The controller: one loop over the agent's messages. `commit` and `open` read as recipes.

mod commit;
mod waits;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::{FromRank, Stall, ToRank};

use super::builder::Job;
use super::matching::deliver_matched;
use super::slowdown::Slowdown;
use super::{Shared, swap};
use crate::channel::{Channel, ChannelError};
use crate::gate::GATE;
use crate::object::lock;
use crate::process::participants::{self, Proposal};
use crate::process::{gang, round};

pub use commit::CLOSE_LIMIT;
pub use waits::{Decision, UNTOLD};

/// How long to wait between two attempts to find an agent again.
const RECONNECT: Duration = Duration::from_secs(1);
/// How often a side is driven that waits for its commit.
const PREPARED: Duration = Duration::from_millis(1);
/// Wake-ups of an idle controller.
const IDLE: Duration = Duration::from_secs(60);

pub struct Controller {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    /// How long the last switch that went through has stopped the application.
    last: Option<(Epoch, Stall)>,
    /// A break-before-make switch holds this process: the gate is closed since.
    held: Option<Held>,
    /// From the peers' addresses to the commit or the abandonment.
    wiring_up: bool,
    slowdown: Slowdown,
}

#[derive(Clone, Copy)]
struct Held {
    epoch: Epoch,
    since: Instant,
    stall: Stall,
}

impl Controller {
    pub fn new(shared: Arc<Shared>, jobs: Sender<Job>) -> Controller {
        Controller {
            shared,
            jobs,
            last: None,
            held: None,
            wiring_up: false,
            slowdown: Slowdown::default(),
        }
    }

    /// Obeys the agent until the process leaves the gang.
    pub fn run(mut self) {
        loop {
            let patience = self.patience();
            match self.shared.channel().receive(patience) {
                Ok(Some(message)) => {
                    self.slowdown.interrupt();
                    self.obey(message);
                }
                Ok(None) => self.drive_prepared(),
                Err(error) => {
                    self.slowdown.interrupt();
                    if self.shared.is_leaving() {
                        return;
                    }
                    self.lose_agent(&error);
                    if !self.find_agent() {
                        return;
                    }
                }
            }
        }
    }

    /// A side that waits for its commit is driven meanwhile: peers may still be wiring up. Not by
    /// the builder, whose other work would hold the commit up.
    fn patience(&mut self) -> Duration {
        // A held process stands still anyway, and its gate is not to be opened.
        let slowdown = match self.held {
            None => self.slowdown.step(),
            Some(_) => None,
        };
        let idle = if self.wiring_up { PREPARED } else { IDLE };
        idle.min(slowdown.unwrap_or(IDLE))
    }

    fn drive_prepared(&self) {
        if let Some(side) = &*lock(&self.shared.prepared) {
            side.progress();
        }
    }

    fn obey(&mut self, message: ToRank) {
        match message {
            ToRank::Welcome(_) => {}
            ToRank::Prepare { epoch, transports } => {
                let held = self.held.is_some_and(|held| held.epoch == epoch);
                match if held { Ok(()) } else { round::begin(epoch) } {
                    Ok(()) => self.give(Job::Build {
                        epoch,
                        transports,
                        held,
                    }),
                    Err(reason) => self.shared.send(&FromRank::Veto { epoch, reason }),
                }
            }
            ToRank::Peers {
                epoch,
                table,
                hellos,
                gone,
            } => {
                self.wiring_up = true;
                self.give(Job::WireUp {
                    epoch,
                    table,
                    hellos,
                    gone,
                });
            }
            ToRank::Commit { epoch, order } => self.commit(epoch, order),
            ToRank::Open { epoch } => self.open(epoch),
            ToRank::Abort { epoch } => self.abort(epoch),
            ToRank::Matched { ids } => deliver_matched(&ids),
            ToRank::SlowDown { percent, millis } => self
                .slowdown
                .order(percent, Duration::from_millis(u64::from(millis))),
            ToRank::Expect { epoch, .. } | ToRank::Proceed { epoch } => {
                if let Some(stall) = self.stall_of(epoch) {
                    self.give(Job::Repeat(FromRank::Drained { epoch, stall }));
                }
            }
            ToRank::Release { epoch } => {
                if let Some(stall) = self.stall_of(epoch) {
                    self.give(Job::Repeat(FromRank::Released {
                        epoch,
                        release_us: 0,
                        stall: Some(stall),
                    }));
                }
            }
        }
    }

    /// How long a switch has stopped the application that is over here, or holds it: another
    /// coordinator may ask again what this process has answered already. A process that began in
    /// its epoch was not stopped.
    fn stall_of(&self, epoch: Epoch) -> Option<Stall> {
        let held = self.held.map(|held| (held.epoch, held.stall));
        let known = [self.last, held].into_iter().flatten();
        let mut known = known.filter(|(of, _)| *of == epoch);
        let began_there = (gang::epoch() == epoch).then(Stall::default);
        known.next().map(|(_, stall)| stall).or(began_there)
    }

    fn give(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            crate::log::error!("the builder thread is gone");
        }
    }

    fn abort(&mut self, epoch: Epoch) {
        self.wiring_up = false;
        self.shared.abandoned.store(true, Ordering::Release);
        self.give(Job::Abandon {
            epoch,
            held: self.held.is_some(),
        });
    }

    /// Break-before-make: changes over to what was prepared and opens the gate.
    fn open(&mut self, epoch: Epoch) {
        self.wiring_up = false;
        let held = self.held.take_if(|held| held.epoch == epoch);
        let prepared = lock(&self.shared.prepared).take_if(|side| side.epoch == epoch);
        if held.is_none()
            && let Some(stall) = self.stall_of(epoch)
        {
            return self.give(Job::Repeat(FromRank::Opened { epoch, stall }));
        }
        let (Some(held), Some(prepared)) = (held, prepared) else {
            self.held = self.held.or(held);
            return self.shared.send(&FromRank::Veto {
                epoch,
                reason: "not held".to_owned(),
            });
        };
        let start = Instant::now();
        swap::attach(prepared);
        GATE.open();
        let mut stall = held.stall;
        stall.repost_us = lap(start);
        stall.total_us = lap(held.since);
        participants::acquire(Proposal {
            epoch,
            hold: true,
            transports: Some(&gang::transports()),
        });
        round::end();
        self.last = Some((epoch, stall));
        self.shared.send(&FromRank::Opened { epoch, stall });
    }

    /// Without an agent a round cannot go on: what was prepared is dropped.
    fn lose_agent(&mut self, error: &ChannelError) {
        crate::log::warning!("the agent is lost ({error}); the job goes on, without switches");
        if self.held.is_none() {
            self.abort(gang::epoch());
        }
    }

    /// Tries to find an agent again; `false` if the process leaves the gang meanwhile.
    fn find_agent(&self) -> bool {
        loop {
            if self.shared.is_leaving() {
                return false;
            }
            std::thread::sleep(RECONNECT);
            let Ok(channel) = Channel::connect() else {
                continue;
            };
            let joined = super::join(&channel, || !self.shared.is_leaving());
            // Who leaves unheard would be taken for dead.
            if joined.is_ok() || self.shared.is_leaving() {
                self.shared.change_agent(channel);
                return true;
            }
            if let Err(error) = joined {
                crate::log::debug!("join again: {error}");
            }
        }
    }
}

fn lap(start: Instant) -> u64 {
    microseconds(start.elapsed())
}

/// Whole microseconds.
pub fn microseconds(time: Duration) -> u64 {
    time.as_micros() as u64
}

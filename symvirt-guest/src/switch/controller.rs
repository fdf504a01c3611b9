//! The controller: one loop over the agent's messages. Commit and open read as recipes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::{FromRank, Stall, SwitchOrder, SyncSend, ToRank};

use super::builder::Job;
use super::drain::{Drain, NAP, PATIENCE, Until};
use super::flip::{self, ChangedOver};
use super::matching::{abandon_drains, attach_syncs, begin_drains, deliver_matched};
use super::orphaned::{Search, Silence};
use super::side::Side;
use super::slowdown::Slowdown;
use super::{Shared, swap};
use crate::channel::{Channel, ChannelError};
use crate::gate::GATE;
use crate::object::lock;
use crate::process::participants::{self, Proposal};
use crate::process::{gang, holds, round};

/// How long an application thread may stay inside UCX before the switch is vetoed.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// A drain that is weighed for longer is told of, again and again.
pub const UNTOLD: Duration = Duration::from_secs(1);
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

/// What the coordinator says when all counters are known, beside the totals.
pub struct Decision {
    pub syncs: Vec<SyncSend>,
    /// Nobody opens before all have drained.
    pub barrier: bool,
    /// What is in flight had to be weighed.
    pub weighed: bool,
}

/// Whether the coordinator was told that this rank has drained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    Told,
    Untold,
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
    /// the builder, whose low priority would hold the commit up.
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

    /// Closes the gate, publishes the counters, drains, changes over.
    fn commit(&mut self, epoch: Epoch, order: SwitchOrder) {
        self.wiring_up = false;
        let mut prepared = match self.enter_commit(epoch, order) {
            Ok(prepared) => prepared,
            Err(reason) => return self.shared.send(&FromRank::Veto { epoch, reason }),
        };
        let start = Instant::now();
        let mut stall = Stall::default();
        if let Err(error) = GATE.close(CLOSE_LIMIT) {
            *lock(&self.shared.prepared) = prepared;
            return self.shared.send(&FromRank::Veto {
                epoch,
                reason: error.to_string(),
            });
        }
        if prepared.is_some() && !round::is_sound(epoch) {
            // Spoiled on the way here; its veto has been sent.
            GATE.open();
            *lock(&self.shared.prepared) = prepared;
            return;
        }
        stall.gate_us = lap(start);
        let late = match prepared.as_mut().map_or(Ok(Vec::new()), Side::catch_up) {
            Ok(late) => late,
            Err(error) => {
                GATE.open();
                *lock(&self.shared.prepared) = prepared;
                let reason = error.to_string();
                return self.shared.send(&FromRank::Veto { epoch, reason });
            }
        };
        let mut drain = Drain::begin();
        self.shared.send(&FromRank::Counters {
            epoch,
            sent: gang::sent(),
            syncs: begin_drains(),
            late,
            atomics: gang::has_atomics(),
            load: drain.load(),
        });
        let Some(decision) = self.wait_for_decision(epoch, &mut drain) else {
            abandon_drains();
            GATE.open();
            *lock(&self.shared.prepared) = prepared;
            return self.abort(epoch);
        };
        stall.counters_us = lap(start) - stall.gate_us;
        if flip::is_right(&decision)
            && let Some(side) = prepared.take()
        {
            let over = flip::change_over(&self.shared, side, drain, decision, stall, start);
            self.last = Some((epoch, over.stall));
            return self.finish(epoch, order, over);
        }
        let taken = drain.fetch(Until::Empty, |at| {
            self.shared.send(&FromRank::Stands { epoch, at });
        });
        let proved = attach_syncs(&decision.syncs);
        taken.note(&mut stall);
        stall.drain_us = lap(start) - stall.gate_us - stall.counters_us;
        swap::take_back_receives();
        let old = swap::detach(epoch);
        let Some(prepared) = prepared else {
            self.held = Some(Held {
                epoch,
                since: start,
                stall,
            });
            close_books(&mut stall, start);
            return self.finish(epoch, order, ChangedOver { old, stall, proved });
        };
        if decision.barrier {
            self.shared.send(&FromRank::Drained { epoch, stall });
            let drained = lap(start);
            self.await_release(epoch, &old, stall, Drained::Told);
            stall.counters_us += lap(start) - drained;
            swap::attach(prepared);
            GATE.open();
            close_books(&mut stall, start);
            gang::confirm(proved);
            self.last = Some((epoch, stall));
            let stall = Some(stall);
            return self.give(Job::Release {
                epoch,
                order,
                old,
                stall,
            });
        }
        swap::attach(prepared);
        GATE.open();
        close_books(&mut stall, start);
        self.last = Some((epoch, stall));
        self.finish(epoch, order, ChangedOver { old, stall, proved });
    }

    /// Drives the old side until it is empty, here and everywhere, and lets it go.
    fn finish(&self, epoch: Epoch, order: SwitchOrder, over: ChangedOver) {
        let ChangedOver { old, stall, proved } = over;
        gang::confirm(proved);
        self.await_release(epoch, &old, stall, Drained::Untold);
        self.give(Job::Release {
            epoch,
            order,
            old,
            stall: None,
        });
    }

    /// What the switch changes over to; `None` for break-before-make.
    fn enter_commit(&self, epoch: Epoch, order: SwitchOrder) -> Result<Option<Side>, String> {
        match order {
            SwitchOrder::MakeBeforeBreak => {
                if !round::is_sound(epoch) {
                    return Err("a UCX object was created or destroyed".to_owned());
                }
                let prepared = lock(&self.shared.prepared).take_if(|side| side.epoch == epoch);
                prepared
                    .map(Some)
                    .ok_or_else(|| "nothing is prepared".to_owned())
            }
            SwitchOrder::BreakBeforeMake => {
                round::begin(epoch)?;
                participants::prepare(Proposal {
                    epoch,
                    hold: true,
                    transports: None,
                })?;
                holds::shut(|| false).map_err(Option::unwrap_or_default)?;
                Ok(None)
            }
        }
    }

    /// Drives the old side until every rank has published its counters and, where space may be
    /// short, has weighed its drain. An agent that is lost meanwhile takes with it what is decided:
    /// others may have changed over already. So this process stands still until the next agent
    /// tells. `None`: the switch is to be forgotten.
    fn wait_for_decision(&self, epoch: Epoch, drain: &mut Drain) -> Option<Decision> {
        let mut idle = 0;
        // Asked to weigh: the decision that follows, and whether ours is out.
        let mut weighing: Option<(Decision, bool)> = None;
        let mut told = Instant::now();
        let mut silence = Silence::begin();
        let mut search = Search::default();
        loop {
            silence.tell(epoch, "has its gate closed, and waits to be told to drain");
            if search.is_in_vain() || self.shared.is_leaving() {
                return None;
            }
            idle = if drain.progress() { 0 } else { idle + 1 };
            if let Some((_, said)) = &mut weighing
                && !*said
                && drain.have_arrived()
            {
                *said = true;
                self.shared.send(&match drain.weigh() {
                    Ok(()) => FromRank::Weighed { epoch },
                    Err(error) => FromRank::Veto {
                        epoch,
                        reason: error.to_string(),
                    },
                });
            }
            if matches!(weighing, Some((_, false))) && told.elapsed() > UNTOLD {
                told = Instant::now();
                let at = drain.describe_closed();
                self.shared.send(&FromRank::Stands { epoch, at });
            }
            let nap = if idle > PATIENCE { NAP } else { Duration::ZERO };
            match self.shared.channel().receive(nap) {
                Ok(Some(ToRank::Expect {
                    epoch: of,
                    totals,
                    syncs,
                    barrier,
                    weigh,
                })) if of == epoch => {
                    drain.expect(&totals);
                    let decision = Decision {
                        syncs,
                        barrier,
                        weighed: weigh,
                    };
                    if !weigh {
                        return Some(decision);
                    }
                    weighing = Some((decision, false));
                }
                Ok(Some(ToRank::Proceed { epoch: of })) if of == epoch => {
                    if let Some((decision, _)) = weighing {
                        return Some(decision);
                    }
                }
                Ok(Some(ToRank::Abort { epoch: of })) if of == epoch => return None,
                Ok(Some(ToRank::Matched { ids })) => deliver_matched(&ids),
                Ok(Some(_) | None) => {}
                // It is this process that has ended the connection.
                Err(_) if self.shared.is_leaving() => return None,
                // Peers may still need answers of the old side.
                Err(error) => search.step(&self.shared, &error, || drain.progress()),
            }
        }
    }

    /// Drives the old side until every rank has drained: bytes of ours may still be in its
    /// buffers. Nobody progresses it afterwards, so nobody is told that its peers go away. This
    /// rank says that it has, if it has not yet, when its own operations are complete. One whose
    /// application stands still until then waits for the next agent if it loses its own.
    fn await_release(&self, epoch: Epoch, old: &Side, stall: Stall, mut drained: Drained) {
        let stands_still = drained == Drained::Told;
        let mut search = Search::default();
        let mut idle = 0;
        let mut told = Instant::now();
        let mut silence = Silence::begin();
        loop {
            if drained == Drained::Untold && !old.is_busy() {
                drained = Drained::Told;
                silence = Silence::begin();
                self.shared.send(&FromRank::Drained { epoch, stall });
            }
            if drained == Drained::Told {
                silence.tell(epoch, "has drained, and waits for the others to have");
            } else if told.elapsed() > UNTOLD {
                told = Instant::now();
                let at = "on the new side; sends of the old one are under way".to_owned();
                self.shared.send(&FromRank::Stands { epoch, at });
            }
            idle = if old.progress() > 0 { 0 } else { idle + 1 };
            let nap = if idle > PATIENCE { NAP } else { Duration::ZERO };
            match self.shared.channel().receive(nap) {
                Ok(Some(ToRank::Release { epoch: of })) if of == epoch => return,
                // Another coordinator goes on with the switch.
                Ok(Some(ToRank::Expect { epoch: of, .. } | ToRank::Proceed { epoch: of }))
                    if of == epoch =>
                {
                    // One that has not drained will say so when it has.
                    if drained == Drained::Told {
                        self.shared.send(&FromRank::Drained { epoch, stall });
                    }
                }
                Ok(Some(ToRank::Matched { ids })) => deliver_matched(&ids),
                Ok(Some(_) | None) => {}
                Err(error) if stands_still && !search.is_in_vain() && !self.shared.is_leaving() => {
                    search.step(&self.shared, &error, || old.progress() > 0);
                }
                Err(_) if drained == Drained::Told => return,
                Err(_) => std::thread::sleep(nap),
            }
        }
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

/// Changed over, or held: what no other entry accounts for went into taking receives back and
/// re-posting them.
fn close_books(stall: &mut Stall, start: Instant) {
    stall.total_us = lap(start);
    stall.repost_us = stall.total_us - stall.gate_us - stall.counters_us - stall.drain_us;
}

fn lap(start: Instant) -> u64 {
    microseconds(start.elapsed())
}

/// Whole microseconds.
pub fn microseconds(time: Duration) -> u64 {
    time.as_micros() as u64
}

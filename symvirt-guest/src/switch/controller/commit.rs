//! The commit: closes the gate, publishes the counters, drains, changes over.

use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::{FromRank, Stall, SwitchOrder};

use super::waits::Drained;
use super::{Controller, Held, lap};
use crate::gate::GATE;
use crate::object::lock;
use crate::process::participants::{self, Proposal};
use crate::process::{gang, holds, round};
use crate::switch::builder::Job;
use crate::switch::drain::{Drain, Until};
use crate::switch::flip::{self, ChangedOver};
use crate::switch::matching::{abandon_drains, attach_syncs, begin_drains};
use crate::switch::side::Side;
use crate::switch::swap;

/// How long an application thread may stay inside UCX before the switch is vetoed.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(5);

impl Controller {
    /// Closes the gate, publishes the counters, drains, changes over.
    pub(super) fn commit(&mut self, epoch: Epoch, order: SwitchOrder) {
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
}

/// Changed over, or held: what no other entry accounts for went into taking receives back and
/// re-posting them.
fn close_books(stall: &mut Stall, start: Instant) {
    stall.total_us = lap(start);
    stall.repost_us = stall.total_us - stall.gate_us - stall.counters_us - stall.drain_us;
}

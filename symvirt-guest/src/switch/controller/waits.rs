//! What a rank does while it waits for the coordinator in the middle of a switch: it drives the old
//! side, tells where it stands, and looks for another agent if its own is lost.

use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::{FromRank, Stall, SyncSend, ToRank};

use super::Controller;
use crate::switch::drain::{Drain, NAP, PATIENCE};
use crate::switch::matching::deliver_matched;
use crate::switch::orphaned::{Search, Silence};
use crate::switch::side::Side;

/// A drain that is weighed for longer is told of, again and again.
pub const UNTOLD: Duration = Duration::from_secs(1);

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
pub enum Drained {
    Told,
    Untold,
}

impl Controller {
    /// Drives the old side until every rank has published its counters and, where space may be
    /// short, has weighed its drain. An agent that is lost meanwhile takes with it what is decided:
    /// others may have changed over already. So this process stands still until the next agent
    /// tells. `None`: the switch is to be forgotten.
    pub(super) fn wait_for_decision(&self, epoch: Epoch, drain: &mut Drain) -> Option<Decision> {
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
    pub(super) fn await_release(
        &self,
        epoch: Epoch,
        old: &Side,
        stall: Stall,
        mut drained: Drained,
    ) {
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
}

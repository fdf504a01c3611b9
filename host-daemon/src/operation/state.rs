//! The state machine of an operation. [`next`] is pure: the same event in the same state always
//! gives the same state, so a journal of events can be replayed.
//!
//! ```text
//!  Switch  ──ok──► Done          (a switch in place; a failed one has no effect: RolledBack;
//!                                one that broke has changed those who are left: Degraded)
//!  Hold ► Rebuild ► RebuildFallback ──► Done · Degraded · NeedsOperator     (the same, held)
//!
//!  Prepare ► LeaveHca | Hold ► CheckHolders ► Unplug ► Copy ══► SwitchOver ► Plug ► AwaitLink
//!     │          │                  │            │       │  ║       │         │        │
//!     │          │ failure or cancel│            │       │  ║       │ failure │        │
//!     ▼          ▼                  ▼            ▼       ▼  ║       ▼         ▼        ▼
//!  ┌─ CancelCopy ► Discard ► PlugBack ► AwaitLinkBack ─┐    ║   TakeHca | Rebuild ► RebuildFallback
//!  │             ► TakeBack | RebuildBack ► RebuildBackFallback ║                │
//!  └────────────────────────────────────────────────────┘   ║   ▼                ▼
//!        RolledBack · Degraded · NeedsOperator              ║   CleanUp ► Done · Degraded ·
//!                                                           ║             NeedsOperator
//!                                      point of no return ──╝
//! ```
//!
//!  SwitchOver ► Postcopy ► Plug …   (if the request allows it: VMs may have crossed before their
//!     memory, which has to follow before anything else is done with them)
//!
//!  Copy ──does not converge──► HoldLate ► CopyHeld ══► SwitchOver   (if the request allows it;
//!     both fail to CancelCopy. The job is held from then on, as if it had been before the copy)
//!
//! Phases that a plan does not need are passed over (no HCA: nothing to leave, unplug or plug).
//! Entering `SwitchOver` is the point of no return: from there on no state of the left side is
//! reachable. If the daemon ends in a phase, the next one begins that phase again. A cancel is
//! noted at once and acted on when the running phase has said how it ended, because a switch of transports that has passed its own point of no return does complete. If such
//! a switch breaks (a rank dies), the others have changed over: going back, they are taken back.
//!
//! Nothing here knows how a phase is carried out; see [`super::phases`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::plan::{Plan, Request};
use crate::config::VmName;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The phase did what it is for.
    Completed,
    /// The phase could not. What it had begun it has undone, or the rollback will.
    Failed {
        /// Why, naming operation and operand.
        reason: String,
    },
    /// A switch of transports that broke after it had an effect: the ranks that are left have
    /// changed over, or are held as was asked.
    Broke {
        /// Why.
        reason: String,
        /// Whether all that are left have answered.
        settled: bool,
    },
    /// The end of [`Phase::SwitchOver`], if not every VM arrived.
    Split {
        /// VMs that run at the source again, and why.
        stayed: Vec<(VmName, String)>,
        /// VMs of which it is not known where they run, and what to do.
        unknown: Vec<(VmName, String)>,
    },
    /// The end of [`Phase::Copy`], if the VMs dirty their memory faster than it is copied, and the
    /// job is to be held for that.
    Diverges {
        /// How fast.
        reason: String,
    },
    /// Somebody wants the operation undone.
    CancelRequested,
    /// The daemon ended in this phase, and the next one begins it again.
    Interrupted,
    /// A QEMU that held the only copy of a VM has ended.
    Lost {
        /// The VM.
        vm: VmName,
        /// How, and what it printed last.
        why: String,
    },
}

/// All that is known about an operation's progress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Phases that completed.
    pub done: BTreeSet<Phase>,
    /// A cancel was asked for before the point of no return.
    pub cancelled: bool,
    /// Why it did not, or will not, end in [`Phase::Done`]; the first reason, then what followed.
    pub reasons: Vec<String>,
    /// Nobody but an operator can put right what `reasons` says.
    pub stuck: bool,
    /// The job runs on, or will run on, less than it was to have.
    pub lesser: bool,
    /// VMs that were let cross and run at the source again.
    #[serde(default)]
    pub stayed: BTreeSet<VmName>,
    /// VMs of which it is not known where they run.
    #[serde(default)]
    pub unknown: BTreeSet<VmName>,
    /// VMs that are no more: the job is lost, and nobody waits for them.
    #[serde(default)]
    pub lost: BTreeSet<VmName>,
}

impl State {
    /// The beginning.
    pub fn start(plan: &Plan) -> Self {
        let phase = match plan.request {
            Request::Migrate { .. } => Phase::Prepare,
            Request::Switch { .. } if plan.holds() => Phase::Hold,
            Request::Switch { .. } => Phase::Switch,
        };
        Self {
            phase,
            done: BTreeSet::new(),
            cancelled: false,
            reasons: Vec::new(),
            stuck: false,
            lesser: false,
            stayed: BTreeSet::new(),
            unknown: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Whether the VM runs at the destination, as far as is known.
    pub fn has_arrived(&self, vm: &VmName) -> bool {
        self.done.contains(&Phase::SwitchOver)
            && ![&self.stayed, &self.unknown, &self.lost]
                .iter()
                .any(|others| others.contains(vm))
    }

    /// Whether the job stands still, or will, until its VMs have crossed.
    pub fn holds(&self, plan: &Plan) -> bool {
        plan.holds() || self.done.contains(&Phase::HoldLate)
    }

    /// Whether not every VM has arrived.
    fn is_split(&self) -> bool {
        !self.stayed.is_empty() || !self.unknown.is_empty()
    }

    /// Whether the job was held, and has to be given transports.
    fn was_held(&self) -> bool {
        self.done.contains(&Phase::Hold) || self.done.contains(&Phase::HoldLate)
    }

    /// All reasons in one line.
    pub fn reason(&self) -> Option<String> {
        (!self.reasons.is_empty()).then(|| self.reasons.join("; then: "))
    }
}

/// The state after `event`.
pub fn next(plan: &Plan, mut state: State, event: Event) -> State {
    if state.phase.is_terminal() {
        return state;
    }
    match event {
        Event::CancelRequested => {
            state.cancelled |= state.phase.can_cancel();
            state
        }
        // Every phase can be begun again: what it had done it finds done.
        Event::Interrupted => state,
        Event::Lost { vm, why } => {
            state
                .reasons
                .push(format!("{vm} is lost, and the job with it: {why}"));
            state.stuck = true;
            state.lost.insert(vm);
            state
        }
        Event::Diverges { reason } => {
            state.phase = if state.phase != Phase::Copy {
                state.phase
            } else if state.cancelled {
                state.reasons.push("cancelled".into());
                roll_back(plan, &mut state)
            } else if plan.ranks && !plan.holds() {
                Phase::HoldLate
            } else {
                state.reasons.push(format!("{}: {reason}", state.phase));
                roll_back(plan, &mut state)
            };
            state
        }
        Event::Completed => {
            state.done.insert(state.phase);
            state.phase = after_success(plan, &mut state);
            state
        }
        Event::Failed { reason } => {
            state.reasons.push(format!("{}: {reason}", state.phase));
            state.phase = after_failure(plan, &mut state);
            state
        }
        Event::Broke { reason, settled } => {
            state.reasons.push(format!("{}: {reason}", state.phase));
            state.done.insert(state.phase);
            state.stuck |= !settled;
            state.phase = after_break(plan, &mut state);
            state
        }
        Event::Split { stayed, unknown } => {
            for (vm, why) in &stayed {
                state
                    .reasons
                    .push(format!("{vm} runs at its source: {why}"));
            }
            for (vm, what) in &unknown {
                state
                    .reasons
                    .push(format!("it is not known where {vm} runs: {what}"));
            }
            state.lesser |= !stayed.is_empty();
            state.stuck |= !unknown.is_empty();
            state.stayed.extend(stayed.into_iter().map(|(vm, _)| vm));
            state.unknown.extend(unknown.into_iter().map(|(vm, _)| vm));
            state.done.insert(state.phase);
            state.phase = match state.phase {
                Phase::SwitchOver if plan.limits().may_postcopy() => Phase::Postcopy,
                Phase::SwitchOver => after_split(plan, &state),
                other => other,
            };
            state
        }
    }
}

fn after_success(plan: &Plan, state: &mut State) -> Phase {
    if state.cancelled && state.phase.can_cancel() && state.phase != Phase::Switch {
        state.reasons.push("cancelled".into());
        return roll_back(plan, state);
    }
    match state.phase {
        Phase::Switch => ended(state, Phase::Done),
        Phase::Prepare if plan.holds() => Phase::Hold,
        Phase::Prepare if plan.leaves_hca() => Phase::LeaveHca,
        Phase::Prepare if plan.unplugs() => Phase::CheckHolders,
        Phase::Prepare => Phase::Copy,
        Phase::LeaveHca => Phase::CheckHolders,
        Phase::Hold if plan.is_in_place() => Phase::Rebuild,
        Phase::Hold if plan.unplugs() => Phase::CheckHolders,
        Phase::Hold => Phase::Copy,
        Phase::CheckHolders => Phase::Unplug,
        Phase::Unplug => Phase::Copy,
        Phase::HoldLate => Phase::CopyHeld,
        Phase::Copy | Phase::CopyHeld => Phase::SwitchOver,
        Phase::SwitchOver if plan.limits().may_postcopy() => Phase::Postcopy,
        Phase::Postcopy if state.is_split() => after_split(plan, state),
        Phase::SwitchOver | Phase::Postcopy if plan.plugs() => Phase::Plug,
        Phase::SwitchOver | Phase::Postcopy if state.holds(plan) => Phase::Rebuild,
        Phase::SwitchOver | Phase::Postcopy => Phase::CleanUp,
        Phase::Plug => Phase::AwaitLink,
        Phase::AwaitLink if state.holds(plan) => Phase::Rebuild,
        Phase::AwaitLink if plan.takes_hca() => Phase::TakeHca,
        Phase::AwaitLink | Phase::TakeHca => Phase::CleanUp,
        Phase::Rebuild | Phase::RebuildFallback => rebuilt(plan, state),
        Phase::CleanUp => ended(state, Phase::Done),
        Phase::CancelCopy => Phase::Discard,
        Phase::Discard if state.done.contains(&Phase::Unplug) => Phase::PlugBack,
        Phase::Discard | Phase::AwaitLinkBack => restore_transport(state),
        Phase::PlugBack => Phase::AwaitLinkBack,
        Phase::TakeBack | Phase::RebuildBack | Phase::RebuildBackFallback => {
            ended(state, Phase::RolledBack)
        }
        Phase::Done | Phase::RolledBack | Phase::Degraded | Phase::NeedsOperator => state.phase,
    }
}

fn after_failure(plan: &Plan, state: &mut State) -> Phase {
    match state.phase {
        // A switch of transports fails without effect.
        Phase::Switch => ended(state, Phase::RolledBack),
        Phase::Prepare
        | Phase::LeaveHca
        | Phase::Hold
        | Phase::CheckHolders
        | Phase::Copy
        | Phase::HoldLate
        | Phase::CopyHeld => roll_back(plan, state),
        Phase::Unplug => {
            // Some may be unplugged; plugging what is plugged does nothing.
            state.done.insert(Phase::Unplug);
            roll_back(plan, state)
        }
        Phase::SwitchOver | Phase::Postcopy => {
            state.stuck = true;
            Phase::NeedsOperator
        }
        Phase::Plug | Phase::AwaitLink => {
            state.lesser = true;
            if state.holds(plan) {
                Phase::RebuildFallback
            } else {
                Phase::CleanUp
            }
        }
        Phase::TakeHca => {
            state.lesser = true;
            Phase::CleanUp
        }
        Phase::Rebuild => {
            state.lesser = true;
            Phase::RebuildFallback
        }
        Phase::RebuildFallback => {
            state.stuck = true;
            rebuilt(plan, state)
        }
        Phase::CleanUp => {
            state.stuck = true;
            ended(state, Phase::Done)
        }
        Phase::CancelCopy => {
            state.stuck = true;
            Phase::NeedsOperator
        }
        // The source runs; what is left at the destination is paused and harmless.
        Phase::Discard if state.done.contains(&Phase::Unplug) => Phase::PlugBack,
        Phase::Discard => restore_transport(state),
        Phase::PlugBack | Phase::AwaitLinkBack => {
            state.lesser = true;
            if state.was_held() {
                Phase::RebuildBackFallback
            } else {
                ended(state, Phase::RolledBack)
            }
        }
        Phase::TakeBack => {
            state.lesser = true;
            ended(state, Phase::RolledBack)
        }
        Phase::RebuildBack => {
            state.lesser = true;
            Phase::RebuildBackFallback
        }
        Phase::RebuildBackFallback => {
            state.stuck = true;
            ended(state, Phase::RolledBack)
        }
        Phase::Done | Phase::RolledBack | Phase::Degraded | Phase::NeedsOperator => state.phase,
    }
}

/// The phase has done what it is for, to those who are left.
fn after_break(plan: &Plan, state: &mut State) -> Phase {
    match state.phase {
        Phase::LeaveHca | Phase::Hold | Phase::HoldLate => roll_back(plan, state),
        Phase::TakeHca => {
            state.lesser = true;
            Phase::CleanUp
        }
        Phase::Rebuild | Phase::RebuildFallback => {
            state.lesser = true;
            rebuilt(plan, state)
        }
        Phase::Switch | Phase::TakeBack | Phase::RebuildBack | Phase::RebuildBackFallback => {
            state.lesser = true;
            ended(state, Phase::RolledBack)
        }
        Phase::Prepare
        | Phase::CheckHolders
        | Phase::Unplug
        | Phase::Copy
        | Phase::CopyHeld
        | Phase::SwitchOver
        | Phase::Postcopy
        | Phase::Plug
        | Phase::AwaitLink
        | Phase::CleanUp
        | Phase::CancelCopy
        | Phase::Discard
        | Phase::PlugBack
        | Phase::AwaitLinkBack => after_failure(plan, state),
        Phase::Done | Phase::RolledBack | Phase::Degraded | Phase::NeedsOperator => state.phase,
    }
}

/// The VMs are on both hosts: the job runs on what those have in common.
fn after_split(plan: &Plan, state: &State) -> Phase {
    match state.holds(plan) {
        true => Phase::RebuildFallback,
        false => Phase::CleanUp,
    }
}

/// The job communicates again, as well as it can.
fn rebuilt(plan: &Plan, state: &State) -> Phase {
    if plan.is_in_place() {
        ended(state, Phase::Done)
    } else {
        Phase::CleanUp
    }
}

fn roll_back(plan: &Plan, state: &mut State) -> Phase {
    if plan.is_in_place() {
        restore_transport(state)
    } else if matches!(state.phase, Phase::Copy | Phase::HoldLate | Phase::CopyHeld) {
        Phase::CancelCopy
    } else {
        Phase::Discard
    }
}

fn restore_transport(state: &mut State) -> Phase {
    if state.was_held() {
        Phase::RebuildBack
    } else if state.done.contains(&Phase::LeaveHca) {
        Phase::TakeBack
    } else {
        ended(state, Phase::RolledBack)
    }
}

fn ended(state: &State, otherwise: Phase) -> Phase {
    if state.stuck {
        Phase::NeedsOperator
    } else if state.lesser {
        Phase::Degraded
    } else {
        otherwise
    }
}

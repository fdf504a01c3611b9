//! What the phases do, by way of the traits of [`super::effects`].
//!
//! | module | phases |
//! |---|---|
//! | [`prepare`] | Prepare, Discard, CleanUp |
//! | [`transport`] | Switch, LeaveHca, Hold, HoldLate, TakeHca, Rebuild and their ways back |
//! | [`devices`] | CheckHolders, Unplug, Plug, AwaitLink and their ways back |
//! | [`copy`] | Copy, CopyHeld, CancelCopy |
//! | [`crossing`] | SwitchOver |
//! | [`postcopy`] | Postcopy |
//!
//! [`vms`] asks hosts about many VMs at a time, [`resume`] takes up what an earlier daemon began,
//! [`counters`] reads what the guests' devices carried.

mod copy;
mod counters;
mod crossing;
mod devices;
mod postcopy;
mod prepare;
mod resume;
mod transport;
mod vms;

pub use devices::active_gids;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::driver::Performer;
use super::effects::{Clock, Guests, Host, Standing};
use super::phase::Phase;
use super::plan::{Plan, Request, Target};
use super::report::{PhaseTime, Report, VmReport};
use super::state::{Event, State};
use crate::api::model::{Progress, VmProgress};
use crate::config::{HostName, VmName};

/// Everything that an operation works with.
pub struct Crew {
    /// What is to be done.
    pub plan: Plan,
    /// The host that the VMs are on.
    pub source: Arc<dyn Host>,
    /// The host that they go to; the source again for a switch in place.
    pub destination: Arc<dyn Host>,
    /// The gang's guests.
    pub guests: Arc<dyn Guests>,
    /// For time stamps.
    pub clock: Arc<dyn Clock>,
    /// Where the state is shown.
    pub shown: watch::Sender<Shown>,
    /// What is measured on the way.
    measured: Mutex<Measured>,
}

impl Crew {
    /// Of an operation in `state`.
    pub fn new(
        plan: Plan,
        state: &State,
        [source, destination]: [Arc<dyn Host>; 2],
        guests: Arc<dyn Guests>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let progress = Progress {
            interconnect: plan.ranks.then_some(plan.interconnect),
            ..Progress::default()
        };
        let shown = Shown {
            state: state.clone(),
            since_ms: clock.now_ms(),
            progress,
        };
        Self {
            plan,
            source,
            destination,
            guests,
            clock,
            shown: watch::channel(shown).0,
            measured: Mutex::default(),
        }
    }
}

/// What is shown of a running operation.
#[derive(Clone, PartialEq, Debug)]
pub struct Shown {
    /// As journalled.
    pub state: State,
    /// Since when it is in its phase.
    pub since_ms: u64,
    /// What changes all the time.
    pub progress: Progress,
}

/// What is measured, and what later phases need of earlier ones.
#[derive(Debug, Default)]
struct Measured {
    /// For the end.
    pub report: Report,
    /// Where the stream of each VM goes.
    pub uris: BTreeMap<VmName, String>,
    /// Copies are under way, or may be, that this daemon has begun.
    copying: bool,
    /// When the first copy began.
    copy_began: Option<Instant>,
    /// When each VM stopped for its switchover, by its host's clock.
    pub stopped_at_us: BTreeMap<VmName, u64>,
    /// The operation was begun by an earlier daemon, and the gang was not heard since.
    unmet: bool,
    /// What it was found on.
    met: Option<Standing>,
    /// VMs that are no more, which the journal does not say yet.
    lost: Vec<(VmName, String)>,
    /// VMs that run at the destination, whose guest channels have not followed yet.
    arrived: Vec<(VmName, HostName)>,
    /// When they may.
    settles_at: Option<Instant>,
    began: Option<Instant>,
    phase_began: Option<(Phase, u64, Instant)>,
}

/// A phase's failure: what an operator reads.
type Outcome = Result<(), String>;

/// Why a phase did not do what it is for.
#[derive(Debug)]
enum Trouble {
    /// What it had begun it has undone, or the rollback will.
    Failed(String),
    /// It had its effect on the ranks that are left.
    Broke { reason: String, settled: bool },
    /// A copy ended before the point of no return; begun anew, it may do better.
    CopyEnded {
        /// Whose, if the copies have not ended together.
        vm: Option<VmName>,
        reason: String,
    },
    /// The VMs dirty their memory faster than it is copied, and the job is to be held.
    Diverges { reason: String },
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl Crew {
    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, change: impl FnOnce(&mut Progress)) {
        self.shown.send_modify(|shown| change(&mut shown.progress));
    }

    fn doing(&self, what: impl Into<String>) {
        self.progress(|progress| progress.doing = what.into());
    }

    /// Adds a note to the report.
    pub fn note(&self, note: impl Into<String>) {
        self.measured().report.notes.push(note.into());
    }

    /// Whether the job stands still until its VMs have crossed.
    fn holds(&self) -> bool {
        self.shown.borrow().state.holds(&self.plan)
    }

    fn destination_name(&self) -> Option<&HostName> {
        match &self.plan.request {
            Request::Migrate { to, .. } => Some(to),
            Request::Switch { .. } => None,
        }
    }

    /// Measures what the VM's entry of the report holds.
    fn vm_report(&self, vm: &VmName, change: impl FnOnce(&mut VmReport)) {
        if let Some(entry) = self
            .measured()
            .report
            .vms
            .iter_mut()
            .find(|entry| entry.vm == *vm)
        {
            change(entry);
        }
    }

    fn show_vm(&self, vm: &VmName, copy: super::effects::CopyStatus) {
        self.progress(
            |progress| match progress.vms.iter_mut().find(|entry| entry.vm == *vm) {
                Some(entry) => entry.copy = copy,
                None => progress.vms.push(VmProgress {
                    vm: vm.clone(),
                    copy,
                }),
            },
        );
    }

    /// The report, at the end.
    pub fn take_report(&self) -> Report {
        let interconnect = self.shown.borrow().progress.interconnect;
        let mut measured = self.measured();
        measured.end_phase();
        if let Some(began) = measured.began {
            let total = began.elapsed().as_millis();
            measured.report.total_ms = u64::try_from(total).unwrap_or(u64::MAX);
        }
        measured.report.interconnect = interconnect.filter(|_| self.plan.ranks);
        measured.report.clone()
    }

    async fn run(&self, phase: Phase) -> Result<(), Trouble> {
        self.settle().await;
        self.meet(phase).await;
        match phase {
            Phase::Switch => self.switch_in_place().await?,
            Phase::Prepare => self.prepare().await?,
            Phase::LeaveHca => self.switch(phase, Target::Fallback).await?,
            Phase::Hold | Phase::HoldLate => self.hold(phase).await?,
            Phase::CheckHolders => self.check_holders().await?,
            Phase::Unplug => self.unplug().await?,
            Phase::Copy | Phase::CopyHeld => self.copy(phase).await?,
            // Handled by the caller: its outcome is more than good or bad.
            Phase::SwitchOver => {}
            Phase::Postcopy => self.postcopy().await?,
            Phase::Plug => self.plug().await?,
            Phase::PlugBack => self.plug_back().await?,
            Phase::AwaitLink | Phase::AwaitLinkBack => self.await_link(phase).await?,
            Phase::TakeHca => self.switch(phase, Target::Native).await?,
            Phase::TakeBack => self.switch(phase, self.plan.interconnect).await?,
            Phase::Rebuild => self.rebuild(phase, self.best_after()).await?,
            Phase::RebuildBack => self.rebuild(phase, self.plan.interconnect).await?,
            Phase::RebuildFallback | Phase::RebuildBackFallback => {
                self.rebuild(phase, Target::Fallback).await?;
            }
            Phase::CleanUp => self.clean_up().await?,
            Phase::CancelCopy => self.cancel_copy().await?,
            Phase::Discard => self.discard().await?,
            Phase::Done | Phase::RolledBack | Phase::Degraded | Phase::NeedsOperator => {}
        }
        Ok(())
    }
}

impl Measured {
    fn end_phase(&mut self) {
        if let Some((phase, began_ms, began)) = self.phase_began.take() {
            let took_ms = began.elapsed().as_secs_f64() * 1000.0;
            self.report.phases.push(PhaseTime {
                phase,
                began_ms,
                took_ms,
            });
        }
    }
}

impl Performer for Crew {
    fn perform(&self, phase: Phase) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            if phase == Phase::SwitchOver {
                return self.cross().await;
            }
            let done = tokio::select! {
                done = self.run(phase) => done,
                () = self.watch(phase) => Ok(()),
            };
            if !matches!(phase, Phase::Copy | Phase::CopyHeld) {
                // Also before the last phase ends: nobody may ask for these VMs again.
                self.look_for_lost().await;
            }
            match done {
                Ok(()) => Event::Completed,
                Err(Trouble::Failed(reason) | Trouble::CopyEnded { reason, .. }) => {
                    Event::Failed { reason }
                }
                Err(Trouble::Broke { reason, settled }) => Event::Broke { reason, settled },
                Err(Trouble::Diverges { reason }) => Event::Diverges { reason },
            }
        })
    }

    fn interrupt(&self, phase: Phase) {
        let switches = [Phase::Switch, Phase::LeaveHca, Phase::Hold, Phase::HoldLate];
        if switches.contains(&phase) {
            self.guests.abort();
        }
    }

    fn take_lost(&self) -> Vec<(VmName, String)> {
        std::mem::take(&mut self.measured().lost)
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn entered(&self, state: &State) {
        let now_ms = self.clock.now_ms();
        {
            let mut measured = self.measured();
            measured.began.get_or_insert_with(Instant::now);
            if measured
                .phase_began
                .as_ref()
                .is_none_or(|(phase, ..)| *phase != state.phase)
            {
                measured.end_phase();
                if !state.phase.is_terminal() {
                    measured.phase_began = Some((state.phase, now_ms, Instant::now()));
                }
            }
        }
        self.shown.send_modify(|shown| {
            if shown.state.phase != state.phase {
                shown.since_ms = now_ms;
                shown.progress.doing.clear();
            }
            shown.state = state.clone();
        });
    }
}

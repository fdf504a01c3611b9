//! The loop of an operation: journal the intent, perform the phase, journal the outcome, go on.
//!
//! No effect without a journalled intent, no next phase without a journalled outcome. Does not
//! know what a phase does; see [`Performer`].

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tracing::{info, warn};

use super::journal::{Journal, JournalError, Record};
use super::phase::Phase;
use super::plan::Plan;
use super::state::{Event, State, next};
use crate::config::VmName;

/// Carries out phases.
pub trait Performer: Send + Sync {
    /// Carries out a phase to its end, good or bad.
    fn perform(&self, phase: Phase) -> BoxFuture<'_, Event>;
    /// The operation is to be undone: bring the running phase to its end soon, if it can be.
    fn interrupt(&self, phase: Phase);
    /// VMs that were found to be no more, and why; each is told once.
    fn take_lost(&self) -> Vec<(VmName, String)>;
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// The state has changed, and the journal says so.
    fn entered(&self, state: &State);
}

/// Where records go.
pub trait Log: Send {
    /// Writes a record and waits until it cannot be lost.
    ///
    /// # Errors
    /// [`JournalError`].
    fn append(&mut self, record: Record, at_ms: u64) -> Result<(), JournalError>;
}

impl Log for Journal {
    fn append(&mut self, record: Record, at_ms: u64) -> Result<(), JournalError> {
        Journal::append(self, record, at_ms)
    }
}

/// Drives an operation from `state` to a terminal one. `cancel` becoming true asks for its undoing.
///
/// # Errors
/// The journal could not be written: nothing further was begun, and the state is the one that the
/// journal shows.
pub async fn drive(
    plan: &Plan,
    mut state: State,
    log: &mut dyn Log,
    performer: &dyn Performer,
    mut cancel: watch::Receiver<bool>,
) -> Result<State, JournalError> {
    while !state.phase.is_terminal() {
        let phase = state.phase;
        performer.entered(&state);
        log.append(Record::Intent { phase }, performer.now_ms())?;
        info!(operation_id = %plan.id, %phase, "phase begins");
        let mut performing = performer.perform(phase);
        let event = loop {
            let asked = !state.cancelled && phase.can_cancel();
            tokio::select! {
                event = &mut performing => break event,
                () = wanted(&mut cancel), if asked => {
                    let event = Event::CancelRequested;
                    log.append(Record::Outcome { phase, event: event.clone() }, performer.now_ms())?;
                    state = next(plan, state, event);
                    performer.entered(&state);
                    performer.interrupt(phase);
                }
            }
        };
        if let Event::Failed { reason } = &event {
            warn!(operation_id = %plan.id, %phase, reason, "phase failed");
        }
        let lost = performer.take_lost().into_iter();
        let lost = lost.map(|(vm, why)| Event::Lost { vm, why });
        for event in lost.chain([event]) {
            let record = Record::Outcome {
                phase,
                event: event.clone(),
            };
            log.append(record, performer.now_ms())?;
            state = next(plan, state, event);
        }
    }
    performer.entered(&state);
    Ok(state)
}

async fn wanted(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|wanted| *wanted).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}

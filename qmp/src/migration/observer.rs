//! What is known of a migration, from QEMU's events and its answers.

use std::time::Duration;

use qapi_qmp::MIGRATION;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Status;
use super::progress::{Answer, Progress, ask, is_over};
use crate::client::Client;
use crate::event::{EventError, Events, Timestamp};

/// How long an event is waited for whose news an answer already brought.
const EVENT_LIMIT: Duration = Duration::from_millis(500);

/// Publishes what events and answers say until the migration is over or the connection gone.
pub(super) async fn observe(
    client: Client,
    mut events: Events,
    interval: Duration,
    progress: watch::Sender<Progress>,
) {
    // Without a status yet, answers may be about an earlier migration.
    let mut begun = progress.borrow().status != Status::none;
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !progress.borrow().is_over() {
        let mut change = None;
        let mut trust_answer = false;
        tokio::select! {
            event = events.next() => match event {
                Ok(event) => match event.decode::<MIGRATION>() {
                    Some(MIGRATION { status }) => {
                        begun |= status == Status::setup;
                        change = begun.then_some((status, event.timestamp));
                    }
                    None => continue,
                },
                Err(EventError::Lagged { .. }) => trust_answer = begun,
                Err(EventError::Closed { .. }) => return,
            },
            _ = tick.tick() => {}
        }
        // A status is passed on before anything is asked: somebody waits for the switchover. An
        // end is passed on together with its numbers.
        if let Some((status, at)) = change {
            let monitor = client.socket().display();
            tracing::debug!(%monitor, ?status, at = at.map(|at| at.microseconds), "migration");
        }
        if let Some((status, at)) = change.filter(|(status, _)| !is_over(*status)) {
            progress.send_modify(|progress| progress.enter(status, at));
        }
        let answer = match ask(&client).await {
            Ok(answer) => answer,
            Err(error) if error.is_closed() => return,
            Err(error) => {
                tracing::debug!(%error, "no progress this time");
                Answer::default()
            }
        };
        // Its status may be older than an event that overtook it, but an end is an end.
        let learned = (answer.status)
            .filter(|status| begun && change.is_none() && (trust_answer || is_over(*status)));
        let rest = match learned {
            // Its event is among those that were missed, as far as anybody can tell.
            Some(status) if trust_answer => vec![(status, None)],
            Some(status) => until(&mut events, status).await,
            None => Vec::new(),
        };
        progress.send_modify(|progress| {
            for (status, at) in change.into_iter().chain(rest) {
                progress.enter(status, at);
            }
            // Numbers of another status are an earlier migration's, or ahead of an event.
            if begun && answer.status.is_none_or(|status| status == progress.status) {
                progress.update(&answer);
            }
        });
    }
}

/// The changes up to `status`, which an answer already told: its event is only behind, and has
/// the time.
async fn until(events: &mut Events, status: Status) -> Vec<(Status, Option<Timestamp>)> {
    let mut changes = Vec::new();
    let arrived = events.wait("the event of a known status", EVENT_LIMIT, |event| {
        let change = event.decode::<MIGRATION>()?.status;
        changes.push((change, event.timestamp));
        (change == status).then_some(())
    });
    if arrived.await.is_err() {
        changes.push((status, None));
    }
    changes
}

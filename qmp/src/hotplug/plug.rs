//! Plugging: all parts of a device, or none.

use std::time::Duration;

use serde_json::Value;

use super::unplug::{UnplugError, remove_netdev, remove_object, unplug};
use super::{DeviceId, DeviceSet, Kind, Step, id_of};
use crate::client::Client;
use crate::error::Error;

/// Why a set of devices was not plugged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlugError {
    /// One of its parts has no `id`, so that it could never be removed. Nothing was added.
    #[error("a part of the device to plug has no id: {properties}")]
    NoId {
        /// That part, as JSON.
        properties: String,
    },
    /// QEMU refused a part; what had been added before was removed again.
    #[error("{command} of {id}; nothing of the device is left")]
    Undone {
        /// The command that failed.
        command: &'static str,
        /// The id it was for.
        id: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// QEMU refused a part, and removing what had been added before failed too.
    #[error("{command} of {id}; still there: {left:?}, because {undo}")]
    Left {
        /// The command that failed.
        command: &'static str,
        /// The id it was for.
        id: String,
        /// Ids that could not be removed.
        left: Vec<String>,
        /// Why the first of them could not.
        undo: String,
        /// Why the command failed.
        #[source]
        source: Error,
    },
}

/// Adds every part of `set` in order. On failure it removes, in reverse, what it added, waiting
/// at most `undo_limit` for each device: the guest has a say in that too.
///
/// Not cancel-safe: dropped in the middle it leaves parts behind, which [`remove`](super::remove) clears away.
///
/// # Errors
/// [`PlugError`], which says what is left.
pub async fn plug(client: &Client, set: &DeviceSet, undo_limit: Duration) -> Result<(), PlugError> {
    if let Some(step) = set.steps().find(|step| id_of(step.properties).is_empty()) {
        let properties = Value::Object(step.properties.clone()).to_string();
        return Err(PlugError::NoId { properties });
    }
    let mut added: Vec<Step<'_>> = Vec::new();
    for step in set.steps() {
        let arguments = Value::Object(step.properties.clone());
        let Err(source) = client.execute_raw(step.list, arguments).await else {
            added.push(step);
            continue;
        };
        let (command, id) = (step.list, id_of(step.properties));
        // Unless QEMU itself said no, it may have been added all the same.
        if source.refusal().is_none() {
            added.push(step);
        }
        let mut left = Vec::new();
        let mut why = None;
        for step in added.into_iter().rev() {
            if let Err(error) = undo(client, step, undo_limit).await {
                left.push(id_of(step.properties));
                why.get_or_insert(error);
            }
        }
        return Err(match why {
            None => PlugError::Undone {
                command,
                id,
                source,
            },
            Some(error) => PlugError::Left {
                command,
                id,
                left,
                undo: error.to_string(),
                source,
            },
        });
    }
    Ok(())
}

async fn undo(client: &Client, step: Step<'_>, limit: Duration) -> Result<(), UnplugError> {
    let id = id_of(step.properties);
    match step.kind {
        Kind::Device => {
            let id = DeviceId(id);
            unplug(client, &id, std::slice::from_ref(&id), limit)
                .await
                .map(|_| ())
        }
        Kind::Netdev => remove_netdev(client, id).await,
        Kind::Object => remove_object(client, id).await,
    }
}

//! Unplugging: asked of the guest, proved by QEMU.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{DeviceId, DeviceSet, id_of};
use crate::client::Client;
use crate::commands;
use crate::error::{Error, ErrorClass};
use crate::event::{EventError, Events, WaitError};
use crate::objects;

/// Why a device is not known to be gone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnplugError {
    /// QEMU refused, or the connection ended.
    #[error("unplug {device}")]
    Command {
        /// The device, or the backend, that was to go.
        device: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// The guest said no.
    #[error("the guest refuses to let go of {device}; it is still attached")]
    GuestRefused {
        /// The device.
        device: DeviceId,
    },
    /// The guest did not let go in time; the request stays pending in QEMU.
    #[error("still attached after {limit:?}: {devices:?}; the request stays pending")]
    StillAttached {
        /// What has not gone.
        devices: Vec<DeviceId>,
        /// How long we waited.
        limit: Duration,
    },
}

/// How a device went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unplugged {
    /// The guest let go of it now, after this time.
    After(Duration),
    /// None of the devices was there to begin with.
    WasAbsent,
}

/// Asks the guest to let go of `request` and waits until QEMU has deleted every device of
/// `expected` (the functions that leave with it, `request` among them), at most `limit` long.
///
/// Cancel-safe in that it can be called again: a pending request is waited for, devices that
/// have gone are not missed.
///
/// # Errors
/// [`UnplugError`]; the devices it names are still attached.
pub async fn unplug(
    client: &Client,
    request: &DeviceId,
    expected: &[DeviceId],
    limit: Duration,
) -> Result<Unplugged, UnplugError> {
    let mut events = client.subscribe();
    let begin = Instant::now();
    let attached = attached(client, request).await?;
    let mut missing: BTreeSet<DeviceId> = expected
        .iter()
        .filter(|id| attached.contains(*id))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(Unplugged::WasAbsent);
    }
    // A set that was only half plugged may lack its primary function: any other will do.
    let request = match missing.contains(request) {
        true => request.clone(),
        false => missing
            .iter()
            .next()
            .cloned()
            .unwrap_or_else(|| request.clone()),
    };
    let command = commands::device_del {
        id: request.0.clone(),
    };
    match client.execute(command).await {
        Ok(_) => {}
        Err(error) if is_pending(&error) => {}
        // It went since we looked; its event is on its way.
        Err(error) if error.is_class(&ErrorClass::DeviceNotFound) => {}
        Err(source) => {
            return Err(UnplugError::Command {
                device: request.0,
                source,
            });
        }
    }
    let deadline = begin + limit;
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        match next_of(&mut events, &missing, left).await {
            Ok(Fate::Deleted(id)) => {
                missing.remove(&id);
            }
            Ok(Fate::Refused(device)) => return Err(UnplugError::GuestRefused { device }),
            Err(WaitError::Events(EventError::Closed { socket, source })) => {
                let source = Error::Closed {
                    socket,
                    command: "DEVICE_DELETED".into(),
                    source,
                };
                return Err(UnplugError::Command {
                    device: request.0,
                    source,
                });
            }
            Err(WaitError::Events(EventError::Lagged { .. })) => {
                // The event may be among the lost ones: look at the state instead.
                let attached = self::attached(client, &request).await?;
                missing.retain(|id| attached.contains(id));
            }
            Err(WaitError::Timeout { .. }) => {
                let devices = missing.into_iter().collect();
                return Err(UnplugError::StillAttached { devices, limit });
            }
        }
    }
    Ok(Unplugged::After(begin.elapsed()))
}

enum Fate {
    Deleted(DeviceId),
    Refused(DeviceId),
}

async fn next_of(
    events: &mut Events,
    of: &BTreeSet<DeviceId>,
    limit: Duration,
) -> Result<Fate, WaitError> {
    let of_ours = |id: Option<String>| id.map(DeviceId).filter(|id| of.contains(id));
    events
        .wait("DEVICE_DELETED", limit, |event| {
            if let Some(deleted) = event.decode::<commands::DEVICE_DELETED>() {
                return of_ours(deleted.device).map(Fate::Deleted);
            }
            let refused = event.decode::<commands::DEVICE_UNPLUG_GUEST_ERROR>()?;
            of_ours(refused.device).map(Fate::Refused)
        })
        .await
}

/// QEMU has no class of its own for this refusal.
fn is_pending(error: &Error) -> bool {
    error
        .refusal()
        .is_some_and(|message| message.contains("already in the process of unplug"))
}

/// Unplugs a whole set: the device `primary`, every function that goes with it, then the
/// backends and their memory, so that the machine can be migrated. Parts that are not there are
/// passed over, so it also completes an interrupted [`plug`](super::plug()) or [`remove`].
///
/// # Errors
/// [`UnplugError`]; parts after the one it names are still there.
pub async fn remove(
    client: &Client,
    set: &DeviceSet,
    primary: &DeviceId,
    limit: Duration,
) -> Result<Unplugged, UnplugError> {
    let unplugged = unplug(client, primary, &set.device_ids(), limit).await?;
    for netdev in set.netdevs.iter().rev() {
        remove_netdev(client, id_of(netdev)).await?;
    }
    let objects: Vec<String> = set.objects.iter().rev().map(id_of).collect();
    for object in &objects {
        remove_object(client, object.clone()).await?;
    }
    let released = objects::memory_released(client, &objects).await;
    released.map_err(|source| UnplugError::Command {
        device: primary.0.clone(),
        source,
    })?;
    Ok(unplugged)
}

pub(super) async fn remove_netdev(client: &Client, id: String) -> Result<(), UnplugError> {
    match client
        .execute(commands::netdev_del { id: id.clone() })
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if error.is_class(&ErrorClass::DeviceNotFound) => Ok(()),
        Err(source) => Err(UnplugError::Command { device: id, source }),
    }
}

pub(super) async fn remove_object(client: &Client, id: String) -> Result<(), UnplugError> {
    let removed = objects::remove(client, &id).await;
    removed.map_err(|source| UnplugError::Command { device: id, source })
}

/// The ids of all devices that were given one.
async fn attached(client: &Client, wanted: &DeviceId) -> Result<BTreeSet<DeviceId>, UnplugError> {
    match objects::names(client, "/machine/peripheral").await {
        Ok(names) => Ok(names.into_iter().map(DeviceId).collect()),
        Err(source) => Err(UnplugError::Command {
            device: wanted.0.clone(),
            source,
        }),
    }
}

/// Whether a device of this id is attached, as QEMU's object tree shows it.
///
/// # Errors
/// Any [`Error`] of the query.
pub async fn is_attached(client: &Client, id: &DeviceId) -> Result<bool, Error> {
    Ok(objects::names(client, "/machine/peripheral")
        .await?
        .contains(&id.0))
}

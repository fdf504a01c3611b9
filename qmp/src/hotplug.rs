//! Plugging and unplugging, until it is proved.
//!
//! ```text
//!  plug:    object-add* ─► netdev_add* ─► device_add*      each failure undoes what came before
//!
//!  unplug:  subscribe ─► device_del ─► DEVICE_DELETED of every expected id ─► netdev_del*, object-del*
//!                            │
//!                            └─ DEVICE_UNPLUG_GUEST_ERROR, or no event within the limit: still attached
//! ```
//! `device_del` is a request to the guest: `{}` means that it was made. Only `DEVICE_DELETED` with
//! exactly that id says that the device is gone (one device of several functions emits several,
//! some without id). A guest that does not answer may still let go later: after an error of
//! [`unplug`] the device is attached *and* the request may be pending, which an operator, or a
//! second [`unplug`], can complete.
//!
//! It does not know what the devices are for, and creates nothing outside QEMU.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::client::Client;
use crate::commands;
use crate::error::{Error, ErrorClass};
use crate::event::{EventError, Events, WaitError};
use crate::objects;

/// Identity of a device in QEMU, unique within one machine.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct DeviceId(pub String);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for DeviceId {
    fn from(id: &str) -> Self {
        DeviceId(id.to_owned())
    }
}

/// The properties of one object, as the command takes them; `id` must be among them.
pub type Properties = Map<String, Value>;

/// What makes up one logical device: backends and the devices that use them, in the order in
/// which they are added.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct DeviceSet {
    /// Arguments of `object-add`.
    #[serde(default)]
    pub objects: Vec<Properties>,
    /// Arguments of `netdev_add`.
    #[serde(default)]
    pub netdevs: Vec<Properties>,
    /// Arguments of `device_add`. With several functions in one slot, function 0 comes last: it
    /// is what shows them to the guest.
    pub devices: Vec<Properties>,
}

impl DeviceSet {
    /// The ids of its devices, in order.
    pub fn device_ids(&self) -> Vec<DeviceId> {
        self.devices
            .iter()
            .map(|properties| DeviceId(id_of(properties)))
            .collect()
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let steps = |kind, list: &'static str, properties| Step {
            kind,
            list,
            properties,
        };
        (self
            .objects
            .iter()
            .map(move |p| steps(Kind::Object, "object-add", p)))
        .chain(
            self.netdevs
                .iter()
                .map(move |p| steps(Kind::Netdev, "netdev_add", p)),
        )
        .chain(
            self.devices
                .iter()
                .map(move |p| steps(Kind::Device, "device_add", p)),
        )
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Object,
    Netdev,
    Device,
}

#[derive(Clone, Copy)]
struct Step<'a> {
    kind: Kind,
    list: &'static str,
    properties: &'a Properties,
}

fn id_of(properties: &Properties) -> String {
    properties
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

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
/// Not cancel-safe: dropped in the middle it leaves parts behind, which [`remove`] clears away.
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
/// passed over, so it also completes an interrupted [`plug`] or [`remove`].
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

async fn remove_netdev(client: &Client, id: String) -> Result<(), UnplugError> {
    match client
        .execute(commands::netdev_del { id: id.clone() })
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if error.is_class(&ErrorClass::DeviceNotFound) => Ok(()),
        Err(source) => Err(UnplugError::Command { device: id, source }),
    }
}

async fn remove_object(client: &Client, id: String) -> Result<(), UnplugError> {
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

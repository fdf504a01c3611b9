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

mod plug;
mod unplug;

pub use plug::{PlugError, plug};
pub use unplug::{UnplugError, Unplugged, is_attached, remove, unplug};

use std::fmt;

use serde_json::{Map, Value};

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

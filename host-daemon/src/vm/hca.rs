//! Plugging an HCA into a VM and unplugging it, both resumable by the record.
//!
//! ```text
//!   attach:  record ─► tap ─► objects ─► netdevs ─► devices
//!   detach:  device_del of the last device ─► DEVICE_DELETED of each ─► netdevs, objects ─► tap ─► record
//! ```
//! The record is written before anything is plugged and removed after everything is gone: with a
//! record, parts of the HCA may be there; without, nothing is.
//!
//! It does not bind host devices to vfio-pci, and does not know whether the guest uses the HCA:
//! that the ranks have let go of it is the caller's to see.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use symvirt_qmp::Client;
use symvirt_qmp::hotplug::{self, DeviceId, DeviceSet, PlugError, UnplugError, Unplugged};

use super::command_line::HCA_BUS;
use super::instance::{Instance, InstanceError};
use super::tap::{self, TapError, TapName};
use crate::config::{Arguments, HcaConfig, HcaName, MacAddress, VmName};

/// Id of a passed-through HCA in QEMU.
const VFIO_ID: &str = "hca";

/// How long the undo of a failed plug waits for the guest.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// An HCA in a VM, wholly or in parts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plugged {
    /// Which of the host's pool.
    pub hca: HcaName,
    /// What it consists of in QEMU.
    pub set: DeviceSet,
    /// The device that `device_del` names.
    pub primary: DeviceId,
    /// The tap behind it, if it is emulated.
    pub tap: Option<HcaTap>,
}

/// The tap behind an emulated HCA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HcaTap {
    /// Its name.
    pub name: TapName,
    /// The bridge it is on.
    pub bridge: String,
}

/// Why an HCA was not plugged or unplugged.
#[derive(Debug, thiserror::Error)]
pub enum HcaError {
    /// The VM has another one.
    #[error("vm {vm} has hca {present} already")]
    Present {
        /// Which VM.
        vm: VmName,
        /// What it has.
        present: HcaName,
    },
    /// Its tap could not be made or removed.
    #[error("hca {hca} of vm {vm}")]
    Tap {
        /// Which HCA.
        hca: HcaName,
        /// Which VM.
        vm: VmName,
        /// Why.
        #[source]
        source: TapError,
    },
    /// QEMU did not take it.
    #[error("plug hca {hca} into vm {vm}")]
    Plug {
        /// Which HCA.
        hca: HcaName,
        /// Which VM.
        vm: VmName,
        /// Why, and what is left.
        #[source]
        source: PlugError,
    },
    /// It did not go.
    #[error("unplug hca {hca} from vm {vm}; it is still attached")]
    Unplug {
        /// Which HCA.
        hca: HcaName,
        /// Which VM.
        vm: VmName,
        /// Why.
        #[source]
        source: UnplugError,
    },
    /// The record could not be kept.
    #[error(transparent)]
    Record(#[from] InstanceError),
}

impl Plugged {
    /// How `config` is plugged into an instance, with every placeholder replaced.
    fn new(config: &HcaConfig, instance: &Instance, mac: MacAddress) -> Self {
        match config {
            HcaConfig::Vfio { name, pci } => {
                let device = json!({
                    "driver": "vfio-pci", "id": VFIO_ID, "host": pci, "bus": HCA_BUS,
                });
                let devices = device.as_object().cloned().into_iter().collect();
                let set = DeviceSet {
                    devices,
                    ..DeviceSet::default()
                };
                Self {
                    hca: name.clone(),
                    set,
                    primary: VFIO_ID.into(),
                    tap: None,
                }
            }
            HcaConfig::QemuDevices {
                name,
                bridge,
                objects,
                netdevs,
                devices,
            } => {
                let tap = TapName::of_hca(instance.id());
                let fill = |tables: &[Arguments]| -> Vec<Arguments> {
                    tables
                        .iter()
                        .map(|table| filled(table, mac, &tap))
                        .collect()
                };
                let set = DeviceSet {
                    objects: fill(objects),
                    netdevs: fill(netdevs),
                    devices: fill(devices),
                };
                let primary = set.device_ids().pop().unwrap_or_else(|| DeviceId::from(""));
                let tap = HcaTap {
                    name: tap,
                    bridge: bridge.clone(),
                };
                Self {
                    hca: name.clone(),
                    set,
                    primary,
                    tap: Some(tap),
                }
            }
        }
    }
}

fn filled(table: &Arguments, mac: MacAddress, tap: &TapName) -> Arguments {
    table
        .iter()
        .map(|(key, value)| (key.clone(), replaced(value, mac, tap)))
        .collect()
}

fn replaced(value: &Value, mac: MacAddress, tap: &TapName) -> Value {
    match value {
        Value::String(text) => Value::String(
            text.replace("{mac}", &mac.to_string())
                .replace("{tap}", tap.as_str())
                .replace("{bus}", HCA_BUS),
        ),
        Value::Array(list) => list.iter().map(|value| replaced(value, mac, tap)).collect(),
        Value::Object(table) => Value::Object(filled(table, mac, tap)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Plugs `hca`; `mac` is that of the VM's wish. Plugging the one that is there completes an
/// interrupted attempt.
///
/// Not cancel-safe: dropped in the middle, [`detach`] clears away.
///
/// # Errors
/// [`HcaError`]. Nothing of it is left unless the source says so; then [`detach`] clears away.
pub async fn attach(
    instance: &mut Instance,
    client: &Client,
    hca: &HcaConfig,
    mac: MacAddress,
) -> Result<(), HcaError> {
    let vm = instance.vm().clone();
    let plugged = Plugged::new(hca, instance, mac);
    if let Some(present) = &instance.record().hca {
        if present.hca != plugged.hca {
            return Err(HcaError::Present {
                vm,
                present: present.hca.clone(),
            });
        }
        if is_whole(client, present)
            .await
            .map_err(|source| HcaError::Unplug {
                hca: present.hca.clone(),
                vm: vm.clone(),
                source: UnplugError::Command {
                    device: present.primary.to_string(),
                    source,
                },
            })?
        {
            return Ok(());
        }
        detach(instance, client, UNDO_LIMIT).await?;
    }
    instance.update(|record| record.hca = Some(plugged.clone()))?;
    if let Some(tap) = &plugged.tap
        && let Err(source) = tap::create(&tap.name, &tap.bridge).await
    {
        instance.update(|record| record.hca = None)?;
        return Err(HcaError::Tap {
            hca: plugged.hca,
            vm,
            source,
        });
    }
    match hotplug::plug(client, &plugged.set, UNDO_LIMIT).await {
        Ok(()) => Ok(()),
        // Parts are left, and so is the record.
        Err(source @ PlugError::Left { .. }) => Err(HcaError::Plug {
            hca: plugged.hca,
            vm,
            source,
        }),
        Err(source @ (PlugError::NoId { .. } | PlugError::Undone { .. })) => {
            forget(instance, &plugged).await?;
            Err(HcaError::Plug {
                hca: plugged.hca,
                vm,
                source,
            })
        }
    }
}

async fn is_whole(client: &Client, plugged: &Plugged) -> Result<bool, symvirt_qmp::Error> {
    for device in plugged.set.device_ids() {
        if !hotplug::is_attached(client, &device).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Unplugs whatever HCA the record knows, waiting at most `limit` for the guest to let go.
/// Without one nothing happens.
///
/// Cancel-safe: call it again, and it completes.
///
/// # Errors
/// [`HcaError`]; after [`HcaError::Unplug`] the request may still be pending in QEMU.
pub async fn detach(
    instance: &mut Instance,
    client: &Client,
    limit: Duration,
) -> Result<Unplugged, HcaError> {
    let Some(plugged) = instance.record().hca.clone() else {
        return Ok(Unplugged::WasAbsent);
    };
    let gone = hotplug::remove(client, &plugged.set, &plugged.primary, limit).await;
    let gone = gone.map_err(|source| HcaError::Unplug {
        hca: plugged.hca.clone(),
        vm: instance.vm().clone(),
        source,
    })?;
    forget(instance, &plugged).await?;
    Ok(gone)
}

/// Removes the tap and the record of an HCA that is not in QEMU any more.
async fn forget(instance: &mut Instance, plugged: &Plugged) -> Result<(), HcaError> {
    if let Some(tap) = &plugged.tap {
        tap::delete(&tap.name)
            .await
            .map_err(|source| HcaError::Tap {
                hca: plugged.hca.clone(),
                vm: instance.vm().clone(),
                source,
            })?;
    }
    Ok(instance.update(|record| record.hca = None)?)
}

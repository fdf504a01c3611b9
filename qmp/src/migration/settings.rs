//! Capabilities and parameters: everything back to its default, then what is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::error::{CommandName, Error};

/// Downtime limit of a QEMU that awaits the stop: the shortest.
///
/// A QEMU that emulates its CPUs and looks for written pages while others that it has found earlier
/// are unsent stops watching those that were written again meanwhile, if they are the only ones
/// (`num_dirty` in `physical_memory_sync_dirty_bitmap` counts none of them, and the TLBs are not
/// reset): what is stored there after they have gone is lost. An idle guest arrived with pieces of
/// its kernel's stacks out of date. Nor does anything go over after the point of no return that
/// could have gone before it.
const AWAITING: Duration = Duration::from_millis(1);

/// How to migrate. Both sides are given the same, where a field does not say otherwise.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The destination confirms over the same connection that it has loaded everything: without
    /// it `completed` on the source says only that everything was sent. Not for files.
    pub return_path: bool,
    /// Stop in `pre-switchover`, with the machine stopped, until told to continue.
    pub pause_before_switchover: bool,
    /// Keep iterating until the machine is stopped by somebody else, however little is left: the
    /// source then waits for a word of the destination that a stopped machine makes needless
    /// (`migration_can_switchover` in QEMU's migration.c). For the source only, since QEMU 8.1.
    ///
    /// The downtime limit then says only how little must be left for QEMU to look for memory that
    /// was written again, and is [`AWAITING`] whatever is asked for.
    pub await_stop: bool,
    /// What is left when the machine is stopped may follow while it runs at the destination already,
    /// see [`super::Outgoing::start_postcopy`]. Not with channels. QEMU sends free pages, too, then.
    /// Pages that the machine waits for have a connection of their own: behind others a crossing at
    /// 8 MiB/s took two seconds, of which a tenth was left.
    pub postcopy: bool,
    /// Every page has its place in the file. For files only.
    pub mapped_ram: bool,
    /// Slow the guest down if it dirties memory faster than it is sent.
    pub auto_converge: bool,
    /// Channels (or threads, for a file) beside the main one; None: none. A destination that dies may
    /// leave a QEMU (10.0) that has more than one of them unable to migrate again.
    pub multifd_channels: Option<u8>,
    /// What the channels of `multifd_channels` send is compressed, by zstd at its fastest level.
    pub compress: bool,
    /// Longest downtime that QEMU may go for; None: QEMU's default, 300 ms. QEMU counts in
    /// milliseconds.
    pub downtime_limit: Option<Duration>,
    /// Bytes per second, 0 for no limit; None: QEMU's default, 128 MiB/s.
    pub max_bandwidth: Option<u64>,
    /// Further capabilities by QEMU's names.
    pub capabilities: BTreeMap<String, bool>,
    /// Further parameters by QEMU's names.
    pub parameters: Map<String, Value>,
}

impl Settings {
    /// For moving a running machine over a socket: confirmed by the destination, no limit to the
    /// bandwidth.
    pub fn live() -> Settings {
        Settings {
            return_path: true,
            max_bandwidth: Some(0),
            ..Settings::default()
        }
    }

    /// For saving to, and restoring from, a file.
    pub fn file() -> Settings {
        Settings {
            mapped_ram: true,
            max_bandwidth: Some(0),
            ..Settings::default()
        }
    }

    fn wants(&self, capability: &str) -> bool {
        match capability {
            "events" => true,
            "return-path" => self.return_path,
            "pause-before-switchover" => self.pause_before_switchover,
            "switchover-ack" => self.await_stop,
            "postcopy-ram" | "postcopy-preempt" => self.postcopy,
            "mapped-ram" => self.mapped_ram,
            "auto-converge" => self.auto_converge,
            "multifd" => self.multifd_channels.is_some(),
            _ => false,
        }
    }

    fn wanted_capabilities(&self) -> BTreeMap<String, bool> {
        let ours = [
            "events",
            "return-path",
            "pause-before-switchover",
            "switchover-ack",
            "postcopy-ram",
            "postcopy-preempt",
            "mapped-ram",
            "auto-converge",
            "multifd",
        ];
        let mut wanted: BTreeMap<String, bool> = ours
            .into_iter()
            .map(|name| (name.to_owned(), self.wants(name)))
            .collect();
        wanted.extend(self.capabilities.clone());
        wanted
    }

    fn wanted_parameters(&self) -> Map<String, Value> {
        let mut wanted = Map::new();
        if let Some(channels) = self.multifd_channels {
            wanted.insert("multifd-channels".into(), channels.into());
        }
        if self.compress {
            wanted.insert("multifd-compression".into(), "zstd".into());
        }
        let awaiting = self.await_stop.then_some(AWAITING);
        if let Some(limit) = awaiting.or(self.downtime_limit) {
            wanted.insert("downtime-limit".into(), milliseconds(limit).into());
        }
        if let Some(bandwidth) = self.max_bandwidth {
            wanted.insert("max-bandwidth".into(), bandwidth.into());
        }
        wanted.extend(self.parameters.clone());
        wanted
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// QEMU 10.0's defaults, as a fresh QEMU reports them (a test compares). Parameters that another
/// version lacks are left out, those it has in addition are not reset.
pub(super) fn default_parameters() -> Map<String, Value> {
    let Value::Object(defaults) = json!({
        "announce-initial": 50,
        "announce-max": 550,
        "announce-rounds": 5,
        "announce-step": 100,
        "avail-switchover-bandwidth": 0,
        "cpu-throttle-increment": 10,
        "cpu-throttle-initial": 20,
        "cpu-throttle-tailslow": false,
        "direct-io": false,
        "downtime-limit": 300,
        "max-bandwidth": 134_217_728,
        "max-cpu-throttle": 99,
        "max-postcopy-bandwidth": 0,
        "mode": "normal",
        "multifd-channels": 2,
        "multifd-compression": "none",
        "multifd-qatzip-level": 1,
        "multifd-zlib-level": 1,
        "multifd-zstd-level": 1,
        "throttle-trigger-threshold": 50,
        "tls-authz": "",
        "tls-creds": "",
        "tls-hostname": "",
        "vcpu-dirty-limit": 1,
        "x-checkpoint-delay": 20_000,
        "x-vcpu-dirty-limit-period": 1000,
        "xbzrle-cache-size": 67_108_864,
        "zero-page-detection": "multifd",
    }) else {
        return Map::new();
    };
    defaults
}

#[derive(Deserialize)]
struct Capability {
    capability: String,
    state: bool,
}

/// Resets every capability and parameter, then sets those of `settings`. Only while no migration
/// is going on; [`super::Outgoing::start`] and [`super::Incoming::listen`] do it by themselves.
///
/// Not cancel-safe by itself, but complete when called again.
///
/// # Errors
/// Any [`Error`]; [`Error::Refused`] when a combination is not possible or a migration is going
/// on. Settings may then be partly changed.
pub async fn configure(client: &Client, settings: &Settings) -> Result<(), Error> {
    const CAPABILITIES: &str = "query-migrate-capabilities";
    const PARAMETERS: &str = "query-migrate-parameters";

    let listed = client.execute_raw(CAPABILITIES, Value::Null).await?;
    let listed: Vec<Capability> = client.decode(CommandName::Borrowed(CAPABILITIES), listed)?;
    // What this QEMU does not know is asked for nevertheless, so that it refuses, but only if it
    // shall be on.
    let mut wanted = settings.wanted_capabilities();
    wanted.retain(|name, on| *on || listed.iter().any(|known| known.capability == *name));
    for known in &listed {
        wanted.entry(known.capability.clone()).or_insert(false);
    }
    let is_set = |name: &str, on| {
        listed
            .iter()
            .any(|known| known.capability == name && known.state == on)
    };
    let changes: Vec<Value> = (wanted.iter())
        .filter(|(name, on)| !is_set(name, **on))
        .map(|(name, on)| json!({ "capability": name, "state": on }))
        .collect();
    if !changes.is_empty() {
        let arguments = json!({ "capabilities": changes });
        client
            .execute_raw("migrate-set-capabilities", arguments)
            .await?;
    }

    let listed = client.execute_raw(PARAMETERS, Value::Null).await?;
    let listed: Map<String, Value> = client.decode(CommandName::Borrowed(PARAMETERS), listed)?;
    let mut wanted = default_parameters();
    wanted.retain(|name, _| listed.contains_key(name));
    wanted.extend(settings.wanted_parameters());
    client
        .execute_raw("migrate-set-parameters", Value::Object(wanted))
        .await?;
    Ok(())
}

/// Changes the downtime that QEMU may go for, also while a migration runs. Takes whole
/// milliseconds.
///
/// # Errors
/// Any [`Error`].
pub async fn set_downtime_limit(client: &Client, limit: Duration) -> Result<(), Error> {
    let arguments = json!({ "downtime-limit": milliseconds(limit) });
    client
        .execute_raw("migrate-set-parameters", arguments)
        .await
        .map(|_| ())
}

/// Changes the bandwidth in bytes per second (0 for no limit), also while a migration runs.
///
/// # Errors
/// Any [`Error`].
pub async fn set_bandwidth(client: &Client, bytes_per_second: u64) -> Result<(), Error> {
    let arguments = json!({ "max-bandwidth": bytes_per_second });
    client
        .execute_raw("migrate-set-parameters", arguments)
        .await
        .map(|_| ())
}

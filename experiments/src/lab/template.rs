//! Guests that are restored instead of booted.
//!
//! ```text
//!  specification without HCA ─ QEMU, as the daemon would start it ─ boot ─ agent runs
//!                                                └─ stop, save (mapped-ram) ─► templates/<key>
//! ```
//!
//! A template belongs to one guest, one image, one payload and one layout of the machine: its key
//! is made of all of them, and of QEMU's version.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use symvirt_host::config::VmSpec;
use symvirt_host::vm::InstanceId;
use symvirt_host::vm::command_line::{self, Start};
use symvirt_host::vm::instance::Files;
use symvirt_host::vm::tap::TapName;
use symvirt_host::vm::template::save;
use symvirt_qmp::{Client, commands};

use super::guest::Guest;
use super::ledger::{Ledger, LedgerError};
use super::{LabError, network};
use crate::command;
use crate::lab_dir::{Fingerprint, LabDir};

/// Time for QEMU to open its monitor on a loaded machine.
const MONITOR: Duration = Duration::from_secs(30);
/// Time for the agent to run once its guest takes commands.
const AGENT: Duration = Duration::from_secs(60);

/// A guest to make a template of.
pub(super) struct Order<'a> {
    /// Its specification: no HCA, no template.
    pub spec: &'a Path,
    /// The guest, reached as [`Guest::new`] says.
    pub guest: Guest,
}

/// Templates of all guests, in their order; those that are missing are made, at the same time.
///
/// # Errors
/// [`LabError`]; QEMUs that were started end with the bed.
pub(super) fn ensure(
    lab: &LabDir,
    ledger: &Ledger,
    namespace: &str,
    orders: &[Order<'_>],
    say: &dyn Fn(&str),
) -> Result<Vec<PathBuf>, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| LabError::File {
            what: "start a runtime for",
            path: ledger.directory().to_owned(),
            source,
        })?;
    let directory = lab.part("templates")?;
    let version = command::run("qemu-system-x86_64", ["--version"])?;
    let mut paths = Vec::new();
    let mut booting = Vec::new();
    for (index, order) in orders.iter().enumerate() {
        let spec = VmSpec::load(order.spec).map_err(|error| LabError::Template {
            guest: order.guest.id.name(),
            reason: error.to_string(),
        })?;
        let path = directory.join(key(&spec, &version, order)?);
        if !path.exists() {
            if booting.is_empty() {
                say("booting guests once, for their templates");
            }
            let (files, qemu) = boot(ledger, namespace, index, &spec, order, &runtime)?;
            booting.push((order, files, qemu, path.clone()));
        }
        paths.push(path);
    }
    for (order, files, mut qemu, path) in booting {
        order.guest.wait_until_up()?;
        order
            .guest
            .wait_until("pgrep -f 'symvirt-guest agent'", AGENT)?;
        let part = path.with_extension("part");
        runtime.block_on(async {
            let failed = |reason: String| LabError::Template {
                guest: order.guest.id.name(),
                reason,
            };
            let client = Client::connect(files.monitor(), MONITOR)
                .await
                .map_err(|error| failed(error.to_string()))?;
            save(&client, &part)
                .await
                .map_err(|error| failed(chain(&error)))?;
            // It answers, or it has ended before it could.
            client.execute(commands::quit {}).await.ok();
            Ok::<(), LabError>(())
        })?;
        qemu.kill().ok();
        qemu.wait().ok();
        std::fs::rename(&part, &path).map_err(|source| LabError::File {
            what: "rename",
            path: part,
            source,
        })?;
    }
    remove_old(&directory, &paths);
    Ok(paths)
}

/// Everything that the state of the VM depends on.
fn key(spec: &VmSpec, version: &str, order: &Order<'_>) -> Result<String, LabError> {
    let files = Files::in_directory("/".into());
    let nobody = "00000000".parse::<InstanceId>();
    let taps: Vec<TapName> = nobody
        .into_iter()
        .map(|id| TapName::of_net(id, 0))
        .collect();
    let words = arguments(spec, &files, &taps, order)?;
    let mut print = Fingerprint::default().with(version);
    for word in words {
        print = print.with(word);
    }
    Ok(print.name())
}

fn arguments(
    spec: &VmSpec,
    files: &Files,
    taps: &[TapName],
    order: &Order<'_>,
) -> Result<Vec<String>, LabError> {
    command_line::arguments(spec, files, taps, Start::Fresh).map_err(|error| LabError::Template {
        guest: order.guest.id.name(),
        reason: error.to_string(),
    })
}

/// Starts the guest, outside of any daemon.
fn boot(
    ledger: &Ledger,
    namespace: &str,
    index: usize,
    spec: &VmSpec,
    order: &Order<'_>,
    runtime: &tokio::runtime::Runtime,
) -> Result<(Files, Child), LabError> {
    let failed = |reason: String| LabError::Template {
        guest: order.guest.id.name(),
        reason,
    };
    let directory = ledger.directory().join(format!("template-{index}"));
    std::fs::create_dir_all(&directory).map_err(|source| LabError::File {
        what: "make",
        path: directory.clone(),
        source,
    })?;
    let files = Files::in_directory(directory);
    let id = InstanceId::new().map_err(|error| failed(error.to_string()))?;
    let tap = TapName::of_net(id, 0);
    network::tap(ledger, namespace, tap.as_str())?;
    let words = arguments(spec, &files, &[tap], order)?;
    let log = std::fs::File::create(files.log()).map_err(|source| LabError::File {
        what: "write",
        path: files.log(),
        source,
    })?;
    let qemu = ledger.making(|| {
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", namespace, "qemu-system-x86_64"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().map_err(|source| LedgerError::File {
            what: "start QEMU in",
            path: files.directory().to_owned(),
            source,
        })
    })?;
    runtime.block_on(async {
        let client = Client::connect(files.monitor(), MONITOR)
            .await
            .map_err(|error| failed(format!("{error}: {}", files.log_tail())))?;
        client
            .execute(commands::cont {})
            .await
            .map_err(|error| failed(error.to_string()))
    })?;
    Ok((files, qemu))
}

/// Templates of other builds are of no use any more, unless another run uses them just now.
fn remove_old(directory: &Path, wanted: &[PathBuf]) {
    const OLD: Duration = Duration::from_secs(3600);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let age = entry.metadata().and_then(|data| data.accessed());
        let old = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > OLD));
        if old && !wanted.contains(&path) {
            std::fs::remove_file(&path).ok();
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

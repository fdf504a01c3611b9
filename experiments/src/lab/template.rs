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
use std::time::Duration;

use symvirt_host::config::VmSpec;
use symvirt_host::vm::InstanceId;
use symvirt_host::vm::command_line::{self, Start};
use symvirt_host::vm::instance::Files;
use symvirt_host::vm::tap::TapName;
use symvirt_host::vm::template::save;

use super::LabError;
use super::bare::Bare;
use super::guest::Guest;
use super::ledger::Ledger;
use crate::command;
use crate::lab_dir::{Fingerprint, LabDir};

/// Time for the agent to run once its guest takes commands.
const AGENT: Duration = Duration::from_secs(60);

/// A guest to make a template of.
pub(super) struct Order {
    /// Its specification: no HCA, no template.
    pub spec: VmSpec,
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
    orders: &[Order],
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
        let spec = &order.spec;
        let path = directory.join(key(spec, &version, order)?);
        if !path.exists() {
            if booting.is_empty() {
                say("booting guests once, for their templates");
            }
            let place = ledger.directory().join(format!("template-{index}"));
            let vm = runtime.block_on(async {
                let vm = Bare::start(ledger, namespace, place, spec, Start::Fresh).await?;
                vm.run().await?;
                Ok::<_, LabError>(vm)
            })?;
            booting.push((order, vm, path.clone()));
        }
        paths.push(path);
    }
    for (order, vm, path) in booting {
        order.guest.wait_until_up()?;
        order
            .guest
            .wait_until("pgrep -f 'symvirt-guest agent'", AGENT)?;
        let part = path.with_extension("part");
        runtime.block_on(async {
            let saved = save(&vm.monitor, &part).await;
            saved.map_err(|error| vm.failed(&error))?;
            vm.end().await;
            Ok::<(), LabError>(())
        })?;
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
fn key(spec: &VmSpec, version: &str, order: &Order) -> Result<String, LabError> {
    let files = Files::in_directory("/".into());
    let nobody = "00000000".parse::<InstanceId>();
    let taps: Vec<TapName> = nobody
        .into_iter()
        .map(|id| TapName::of_net(id, 0))
        .collect();
    let words = command_line::arguments(spec, &files, &taps, Start::Fresh);
    let words = words.map_err(|error| LabError::Template {
        guest: order.guest.id.name(),
        reason: error.to_string(),
    })?;
    let mut print = Fingerprint::default().with(version);
    for word in words {
        print = print.with(word);
    }
    Ok(print.name())
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

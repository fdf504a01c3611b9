//! VMs that QEMU runs by itself, outside of any daemon: those that become templates, and those that
//! show what a migration costs without our help.
//!
//! The command line is the daemon's, so that they are the same machines.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use symvirt_host::config::VmSpec;
use symvirt_host::vm::InstanceId;
use symvirt_host::vm::command_line::{self, Start};
use symvirt_host::vm::instance::Files;
use symvirt_host::vm::tap::TapName;
use symvirt_qmp::migration::{Endpoint, Incoming, Settings};
use symvirt_qmp::{Client, commands};

use super::ledger::{Ledger, LedgerError};
use super::{LabError, network};

/// Time for QEMU to open its monitor on a loaded machine.
const MONITOR: Duration = Duration::from_secs(30);
/// Time for a template to be read.
const RESTORE: Duration = Duration::from_secs(60);

/// A VM and its QEMU. The QEMU ends with the bed, or by [`Bare::end`].
#[derive(Debug)]
pub struct Bare {
    /// What it was made from.
    pub spec: VmSpec,
    /// The monitor of its QEMU.
    pub monitor: Client,
    qemu: Child,
}

impl Bare {
    /// Starts a QEMU that stands still ([`Start::Fresh`]), or that waits for a migration and runs
    /// then what comes ([`Start::Waiting`]). `directory` is for its files, and made.
    ///
    /// # Errors
    /// [`LabError`].
    pub(super) async fn start(
        ledger: &Ledger,
        namespace: &str,
        directory: PathBuf,
        spec: &VmSpec,
        start: Start,
    ) -> Result<Self, LabError> {
        let failed = |error: &dyn std::error::Error| failure(spec, error);
        std::fs::create_dir_all(&directory).map_err(|source| LabError::File {
            what: "make",
            path: directory.clone(),
            source,
        })?;
        let files = Files::in_directory(directory);
        let id = InstanceId::new().map_err(|error| failed(&error))?;
        let tap = TapName::of_net(id, 0);
        network::tap(ledger, namespace, tap.as_str())?;
        let mut words =
            command_line::arguments(spec, &files, &[tap], start).map_err(|error| failed(&error))?;
        if start == Start::Waiting {
            words.retain(|word| word != "-S");
        }
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
        let connected = Client::connect(files.monitor(), MONITOR).await;
        let monitor = connected.map_err(|error| LabError::Bare {
            vm: spec.name.to_string(),
            reason: format!("{error}: {}", files.log_tail()),
        })?;
        Ok(Self {
            spec: spec.clone(),
            monitor,
            qemu,
        })
    }

    /// Starts a VM from a template.
    ///
    /// # Errors
    /// [`LabError`].
    pub(super) async fn restore(
        ledger: &Ledger,
        namespace: &str,
        directory: PathBuf,
        spec: &VmSpec,
        template: &Path,
    ) -> Result<Self, LabError> {
        let vm = Self::start(ledger, namespace, directory, spec, Start::Waiting).await?;
        let from = Endpoint::File(template.to_owned());
        let read = async {
            let mut incoming = Incoming::listen(&vm.monitor, &from, &Settings::file()).await?;
            incoming.finish(RESTORE).await
        };
        read.await.map_err(|error| vm.failed(&error))?;
        vm.run().await?;
        Ok(vm)
    }

    /// Lets it run.
    ///
    /// # Errors
    /// [`LabError::Bare`].
    pub async fn run(&self) -> Result<(), LabError> {
        let run = self.monitor.execute(commands::cont {}).await;
        run.map(|_| ()).map_err(|error| self.failed(&error))
    }

    /// Ends it.
    pub async fn end(mut self) {
        // It answers, or it has ended before it could.
        self.monitor.execute(commands::quit {}).await.ok();
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }

    /// An error of this VM.
    pub fn failed(&self, error: &dyn std::error::Error) -> LabError {
        failure(&self.spec, error)
    }
}

fn failure(spec: &VmSpec, error: &dyn std::error::Error) -> LabError {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        reason.push_str(": ");
        reason.push_str(&error.to_string());
        source = error.source();
    }
    LabError::Bare {
        vm: spec.name.to_string(),
        reason,
    }
}

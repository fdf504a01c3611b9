//! The instances of this host: start, list, clear.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use symvirt_qmp::{Client, commands};
use tokio::process::Child;

use super::command_line::{self, CommandLineError, Start};
use super::instance::{self, Files, Instance, InstanceError, InstanceId, Origin, Record};
use super::process::{ProcessIdentity, spawn_detached};
use super::tap::{self, TapError, TapName};
use super::template::{self, TemplateError};
use crate::config::{HostConfig, VmName, VmSpec};

/// Longest path of a unix socket that the kernel takes.
const SOCKET_PATH_LIMIT: usize = 107;

/// How long QEMU may take from its start to its monitor's greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(60);

/// How long a QEMU whose start failed may take to end after each signal.
const UNDO_GRACE: Duration = Duration::from_secs(5);

/// Why a VM was not started, or not cleared away.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The specification makes no command line.
    #[error("vm {vm}")]
    CommandLine {
        /// Which.
        vm: VmName,
        /// Why.
        #[source]
        source: CommandLineError,
    },
    /// It wants a template to be restored but names none.
    #[error("vm {vm} has no template to restore")]
    NoTemplate {
        /// Which.
        vm: VmName,
    },
    /// Sockets there would have longer names than the kernel takes.
    #[error(
        "{directory} is too long: its sockets need at most {SOCKET_PATH_LIMIT} bytes",
        directory = directory.display()
    )]
    PathTooLong {
        /// Directory of the instance.
        directory: PathBuf,
    },
    /// Its directory cannot be made, read or removed.
    #[error("{action} {path}", path = path.display())]
    Directory {
        /// For example `create`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its record or its process.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Its network.
    #[error("vm {vm}")]
    Tap {
        /// Which.
        vm: VmName,
        /// Why.
        #[source]
        source: TapError,
    },
    /// QEMU could not be run.
    #[error("run {program} for vm {vm}", program = program.display())]
    Run {
        /// Which.
        vm: VmName,
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU ended before it could be used.
    #[error("QEMU of vm {vm} ended with {status}: {log}")]
    Ended {
        /// Which.
        vm: VmName,
        /// How.
        status: ExitStatus,
        /// The end of what it printed.
        log: String,
    },
    /// Its monitor.
    #[error("monitor of vm {vm}")]
    Monitor {
        /// Which.
        vm: VmName,
        /// Why.
        #[source]
        source: symvirt_qmp::Error,
    },
    /// Its template.
    #[error("vm {vm}: {log}")]
    Template {
        /// Which.
        vm: VmName,
        /// The end of what QEMU printed.
        log: String,
        /// Why.
        #[source]
        source: Box<TemplateError>,
    },
    /// It is still running.
    #[error("vm {vm} is still running and cannot be cleared away")]
    Running {
        /// Which.
        vm: VmName,
    },
}

/// What [`Vms::list`] found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Instances, running or not, ordered by VM.
    pub instances: Vec<Instance>,
    /// Directories that hold no readable record. Nothing is done to them.
    pub unreadable: Vec<InstanceError>,
}

/// The instances of this host.
#[derive(Clone, Debug)]
pub struct Vms {
    directory: PathBuf,
    qemu: PathBuf,
    bridge: String,
}

impl Vms {
    /// Those that `host` configures.
    pub fn new(host: &HostConfig) -> Self {
        Self {
            directory: host.state_dir.join("vms"),
            qemu: host.qemu.clone(),
            bridge: host.bridge.clone(),
        }
    }

    /// Starts a QEMU for `spec`. From [`Origin::Boot`] and [`Origin::Template`] the VM runs when
    /// this returns; from [`Origin::Incoming`] QEMU waits, stopped, for `migrate-incoming`.
    ///
    /// Not cancel-safe: dropped in the middle it leaves an instance that [`Vms::list`] shows.
    ///
    /// # Errors
    /// [`VmError`]; nothing is left of the instance, or a warning in the log says what is.
    pub async fn start(
        &self,
        spec: &VmSpec,
        origin: Origin,
    ) -> Result<(Instance, Client), VmError> {
        let mut instance = self.create(spec, origin)?;
        match self.bring_up(&mut instance).await {
            Ok(client) => Ok((instance, client)),
            Err(error) => {
                self.undo(&instance).await;
                Err(error)
            }
        }
    }

    /// The directory and the record: from here on the instance exists.
    fn create(&self, spec: &VmSpec, origin: Origin) -> Result<Instance, VmError> {
        let directory_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| VmError::Directory {
                action,
                path,
                source,
            }
        };
        let id = InstanceId::new().map_err(directory_error("name", &self.directory))?;
        let path = self.directory.join(format!("{}.{id}", spec.name));
        let files = Files::in_directory(path.clone());
        if files.monitor().as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(VmError::PathTooLong { directory: path });
        }
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        private
            .recursive(true)
            .create(&self.directory)
            .and_then(|()| private.recursive(false).create(&path))
            .map_err(directory_error("create", &path))?;
        let taps = (0..spec.nets.len())
            .map(|index| TapName::of_net(id, index))
            .collect();
        let record = Record {
            id,
            spec: spec.clone(),
            origin,
            taps,
            process: None,
            hca: None,
        };
        instance::write(&files.record(), &record)?;
        Ok(Instance::new(files, record))
    }

    async fn bring_up(&self, instance: &mut Instance) -> Result<Client, VmError> {
        let vm = instance.vm().clone();
        let record = instance.record().clone();
        let template = match (record.origin, &record.spec.template) {
            (Origin::Template, None) => return Err(VmError::NoTemplate { vm }),
            (Origin::Template, Some(file)) => Some(file.clone()),
            (Origin::Boot | Origin::Incoming, _) => None,
        };
        let start = match record.origin {
            Origin::Boot => Start::Fresh,
            Origin::Template | Origin::Incoming => Start::Waiting,
        };
        let arguments = command_line::arguments(&record.spec, &instance.files, &record.taps, start)
            .map_err(|source| VmError::CommandLine {
                vm: vm.clone(),
                source,
            })?;
        for tap in &record.taps {
            let created = tap::create(tap, &self.bridge).await;
            created.map_err(|source| VmError::Tap {
                vm: vm.clone(),
                source,
            })?;
        }

        let child = spawn_detached(&self.qemu, &arguments, &instance.files.log())
            .map_err(|source| self.run_error(&vm, source))?;
        let client = self.monitor(instance, child).await?;
        let monitor = |source| VmError::Monitor {
            vm: vm.clone(),
            source,
        };
        if let Some(file) = template {
            template::load(&client, &file)
                .await
                .map_err(|source| VmError::Template {
                    vm: vm.clone(),
                    log: instance.files.log_tail(),
                    source: Box::new(source),
                })?;
        }
        if record.origin != Origin::Incoming {
            client.execute(commands::cont {}).await.map_err(monitor)?;
        }
        Ok(client)
    }

    /// Records the process and connects to its monitor, unless it ends first.
    async fn monitor(&self, instance: &mut Instance, mut child: Child) -> Result<Client, VmError> {
        let vm = instance.vm().clone();
        if let Err(error) = self.record_process(instance, &child) {
            // Nobody would find it again.
            if let Err(left) = child.kill().await {
                tracing::warn!(%vm, pid = child.id(), error = %left, "a QEMU is left behind");
            }
            return Err(error);
        }
        let client = tokio::select! {
            client = Client::connect(instance.files.monitor(), GREETING_LIMIT) => {
                client.map_err(|source| VmError::Monitor { vm: vm.clone(), source })?
            }
            status = child.wait() => {
                let status = status.map_err(|source| self.run_error(&vm, source))?;
                return Err(VmError::Ended { vm, status, log: instance.files.log_tail() });
            }
        };
        // While this daemon lives, the QEMU is its child and has to be waited for.
        tokio::spawn(async move {
            let status = child.wait().await;
            tracing::info!(%vm, ?status, "QEMU ended");
        });
        Ok(client)
    }

    fn record_process(&self, instance: &mut Instance, child: &Child) -> Result<(), VmError> {
        // None: it has ended already; the wait for it will say how.
        let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return Ok(());
        };
        let process = ProcessIdentity::of(pid);
        let process = process.map_err(|source| self.run_error(instance.vm(), source))?;
        Ok(instance.update(|record| record.process = process)?)
    }

    fn run_error(&self, vm: &VmName, source: io::Error) -> VmError {
        VmError::Run {
            vm: vm.clone(),
            program: self.qemu.clone(),
            source,
        }
    }

    async fn undo(&self, instance: &Instance) {
        let stopped = instance.stop(None, UNDO_GRACE).await.map_err(VmError::from);
        let cleared = match stopped {
            Ok(()) => self.clear(instance).await,
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            let directory = instance.files.directory().display();
            tracing::warn!(vm = %instance.vm(), %directory, %error, "parts of a VM are left behind");
        }
    }

    /// Every instance that has a directory here, in the order of VMs.
    ///
    /// # Errors
    /// [`VmError::Directory`].
    pub fn list(&self) -> Result<Listing, VmError> {
        let failed = |source| {
            let path = self.directory.clone();
            VmError::Directory {
                action: "list",
                path,
                source,
            }
        };
        let mut listing = Listing::default();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if !path.is_dir() {
                continue;
            }
            match Instance::load(path) {
                Ok(instance) => listing.instances.push(instance),
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing
            .instances
            .sort_by(|a, b| (a.vm(), a.id()).cmp(&(b.vm(), b.id())));
        Ok(listing)
    }

    /// Removes what is left of an instance whose QEMU has ended: taps and directory. What QEMU
    /// printed is kept beside it as `VM.last.log`. Can be repeated.
    ///
    /// # Errors
    /// [`VmError::Running`], or what could not be removed; the record is removed last.
    pub async fn clear(&self, instance: &Instance) -> Result<(), VmError> {
        let vm = instance.vm().clone();
        if instance.is_alive()? {
            return Err(VmError::Running { vm });
        }
        let record = instance.record();
        let hca = record.hca.as_ref().and_then(|hca| hca.tap.as_ref());
        for tap in record.taps.iter().chain(hca.map(|tap| &tap.name)) {
            let deleted = tap::delete(tap).await;
            deleted.map_err(|source| VmError::Tap {
                vm: vm.clone(),
                source,
            })?;
        }
        let last = self.directory.join(format!("{vm}.last.log"));
        if let Err(error) = fs::rename(instance.files.log(), &last) {
            tracing::debug!(%vm, %error, "no log to keep");
        }
        let directory = instance.files.directory();
        match fs::remove_dir_all(directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(VmError::Directory {
                action: "remove",
                path: directory.to_owned(),
                source,
            }),
            _ => Ok(()),
        }
    }
}

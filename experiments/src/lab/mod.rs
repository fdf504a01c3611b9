//! The test bed: two hosts, their daemons, guests with HCAs.
//!
//! ```text
//!                  this program
//!        symvirt, ssh │        │ symvirt, ssh
//!   ┌ namespace a ────▼──┐  ┌──▼──── namespace b ┐
//!   │ symvirtd ─ g1  g2  │══│ symvirtd           │
//!   │           HCA HCA  │  │      (no HCA)      │
//!   └────────────────────┘  └────────────────────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`requirements`] | what the machine must allow |
//! | [`ledger`] | what was made, and its removal, also after a crash |
//! | [`network`] | namespaces, bridges, veth |
//! | [`host`] | configuration and daemon of a host |
//! | [`guest`] | identity, specification and ssh of a guest |
//! | [`template`] | guests that are restored instead of booted |
//! | [`bare`] | guests that QEMU runs by itself |
//! | [`words`] | what daemons and guests' kernels said last |

pub mod bare;
pub mod guest;
pub mod host;
pub mod ledger;
mod network;
pub mod requirements;
mod template;
pub mod words;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use symvirt_host::config::VmSpec;
use symvirt_host::vm::command_line::Start;
use tokio::runtime::Runtime;

use crate::command::{self, CommandError};
use crate::image::{Image, ImageError, Payload};
use crate::job::Mpi;
use crate::lab_dir::{LabDir, LabDirError};
use bare::Bare;
use guest::{Guest, GuestId, SpecOptions};
use host::{Host, HostPlan};
use ledger::{Ledger, LedgerError};

/// Name of the gang that the bed's guests form.
pub const GANG: &str = "job";

/// Why the bed could not be put up, or a guest does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine does not allow it; nothing was changed.
    #[error("{0}; nothing was changed")]
    Unfit(#[from] requirements::Requirement),
    /// No image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The lab's directory.
    #[error(transparent)]
    LabDir(#[from] LabDirError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] CommandError),
    /// A file.
    #[error("{what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A daemon does not answer.
    #[error("symvirtd of host {host} does not answer: {error}\n{log}")]
    Daemon {
        /// The host.
        host: &'static str,
        /// What its client said.
        error: String,
        /// The end of its log.
        log: String,
    },
    /// A guest's template could not be made.
    #[error("make the template of guest {guest}: {reason}")]
    Template {
        /// The guest.
        guest: String,
        /// Why.
        reason: String,
    },
    /// A VM outside of the daemons does not do what was asked.
    #[error("VM {vm}, run by QEMU alone: {reason}")]
    Bare {
        /// The VM.
        vm: String,
        /// Why.
        reason: String,
    },
    /// The daemon did not begin, or did not end, an operation.
    #[error("symvirt migrate (exit {exit:?}): {said}")]
    Refused {
        /// Exit status.
        exit: Option<i32>,
        /// What it said.
        said: String,
    },
    /// A guest does not answer.
    #[error("guest {guest}: `{script}` does not succeed within {limit:?}: {last}")]
    Silent {
        /// The guest.
        guest: String,
        /// What was tried.
        script: String,
        /// For how long.
        limit: Duration,
        /// What it said last.
        last: String,
    },
}

/// What a bed consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hosts; the guests start on the first.
    pub hosts: Vec<HostPlan>,
    /// Number of guests, each with an HCA if its host has one for it.
    pub guests: u8,
}

impl Plan {
    /// Two guests on host a, which has an HCA for each; host b has none.
    pub fn crossing() -> Self {
        Self {
            hosts: vec![
                HostPlan { name: "a", hcas: 2 },
                HostPlan { name: "b", hcas: 0 },
            ],
            guests: 2,
        }
    }
}

/// A bed that is up. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    /// The hosts in the order of the plan.
    pub hosts: Vec<Host>,
    /// The guests, g1 first.
    pub guests: Vec<Guest>,
    ledger: Ledger,
    logs: PathBuf,
    stock: Stock,
}

/// What guests are made from.
#[derive(Debug)]
struct Stock {
    plan: Plan,
    directory: LabDir,
    image: Image,
    /// The second disk.
    disk: PathBuf,
}

/// Where the programs of the project are: beside this one.
///
/// # Errors
/// [`LabError::File`].
pub fn programs() -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map_err(|source| LabError::File {
        what: "find",
        path: "/proc/self/exe".into(),
        source,
    })?;
    let mut directory = own.parent().unwrap_or(Path::new("/")).to_owned();
    // Test programs are one level deeper.
    if directory.ends_with("deps") {
        directory.pop();
    }
    Ok(directory)
}

/// What is under test in the guests: the library, the guest's program, the MPI test programs.
///
/// # Errors
/// [`LabError`] if a test program does not compile.
pub fn payload(programs: &Path, apps: &[(Mpi, PathBuf)]) -> Result<Payload, LabError> {
    let mut payload = Payload::default()
        .with("bin/symvirt-guest", programs.join("symvirt-guest"))
        .with("lib/libsymvirt.so", programs.join("libsymvirt.so"));
    for (mpi, directory) in apps {
        let listed = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut built: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
        built.sort();
        for app in built {
            let name = app.file_name().unwrap_or_default().to_string_lossy();
            payload = payload.with(mpi.app(&name), app);
        }
    }
    Ok(payload)
}

impl Lab {
    /// Puts the bed up: hosts, daemons, guests that take commands. `say` hears of each step.
    ///
    /// # Errors
    /// [`LabError`]; what was made is removed, logs are kept in the lab's directory.
    pub fn up(plan: &Plan, say: &dyn Fn(&str)) -> Result<Self, LabError> {
        let mut lab = Self::up_without_guests(plan, say)?;
        lab.start_guests(say)?;
        Ok(lab)
    }

    /// The same without guests.
    ///
    /// # Errors
    /// As [`Lab::up`].
    pub fn up_without_guests(plan: &Plan, say: &dyn Fn(&str)) -> Result<Self, LabError> {
        requirements::check()?;
        let swept = ledger::sweep()?;
        if swept > 0 {
            say(&format!("removed {swept} test bed(s) whose owner had died"));
        }
        let directory = LabDir::open()?;
        let image = Image::ensure(&directory, say)?;
        let programs = programs()?;
        let apps = [Mpi::OpenMpi, Mpi::Mpich].map(|mpi| {
            let built = crate::apps::build(&directory, mpi);
            built.map(|built| (mpi, built))
        });
        let apps = apps.into_iter().collect::<Result<Vec<_>, _>>()?;
        let disk = payload_disk(&directory, &payload(&programs, &apps)?)?;

        let ledger = Ledger::create()?;
        end_on_signals(&ledger);
        let mut lab = Self {
            hosts: Vec::new(),
            guests: Vec::new(),
            logs: directory.part("logs")?,
            ledger,
            stock: Stock {
                plan: plan.clone(),
                directory,
                image,
                disk,
            },
        };
        let up = lab.start_hosts(&programs, say);
        lab.or_keep_logs(up, say)?;
        Ok(lab)
    }

    /// Starts the guests under the first host's daemon.
    ///
    /// # Errors
    /// [`LabError`]; logs are kept in the lab's directory.
    pub fn start_guests(&mut self, say: &dyn Fn(&str)) -> Result<(), LabError> {
        let up = self.populate(say);
        self.or_keep_logs(up, say)
    }

    fn or_keep_logs(
        &self,
        result: Result<(), LabError>,
        say: &dyn Fn(&str),
    ) -> Result<(), LabError> {
        if result.is_err()
            && let Ok(kept) = self.keep_logs()
        {
            say(&format!("logs are kept in {}", kept.display()));
        }
        result
    }

    fn start_hosts(&mut self, programs: &Path, say: &dyn Fn(&str)) -> Result<(), LabError> {
        let run = self.ledger.directory().to_owned();
        let plans = &self.stock.plan.hosts;
        let names: Vec<&str> = plans.iter().map(|host| host.name).collect();
        let namespaces = network::make(&self.ledger, &names)?;
        Host::configure(plans, &run, programs)?;
        for (index, (host, namespace)) in plans.iter().zip(namespaces).enumerate() {
            let host = Host::new(host.name, namespace, index, run.clone(), programs);
            host.start(&self.ledger)?;
            self.hosts.push(host);
        }
        say(&format!("hosts {} are up", names.join(", ")));
        Ok(())
    }

    fn populate(&mut self, say: &dyn Fn(&str)) -> Result<(), LabError> {
        let run = self.ledger.directory().to_owned();
        let templates = self.templates(say)?;
        let mut start = self.hosts[0].symvirt();
        start.args(["vm", "start"]);
        for (id, template) in self.ids().zip(templates) {
            let options = SpecOptions {
                gang: GANG.into(),
                hca: usize::from(id.0) <= self.stock.plan.hosts[0].hcas,
                template: Some(template),
            };
            let path = run.join(format!("{}.toml", id.name()));
            write(
                &path,
                &id.spec(&self.stock.image, &self.stock.disk, &options),
            )?;
            start.arg(path);
            self.guests.push(self.guest(id, &run));
        }
        self.ledger
            .making(|| command::output(&mut start).map_err(LabError::from))?;
        for guest in &self.guests {
            guest.wait_until_up()?;
        }
        say(&format!("{} guests are up", self.guests.len()));
        Ok(())
    }

    fn ids(&self) -> impl Iterator<Item = GuestId> + use<> {
        (1..=self.stock.plan.guests).map(GuestId)
    }

    /// A guest that is, or will be, on the first host's Ethernet.
    fn guest(&self, id: GuestId, directory: &Path) -> Guest {
        Guest::new(id, &self.hosts[0].namespace, &self.stock.image, directory)
    }

    /// Starts the guests without HCAs and without the daemons, which know nothing of them.
    /// `runtime` serves their monitors.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_bare(
        &self,
        runtime: &Runtime,
        say: &dyn Fn(&str),
    ) -> Result<(Vec<Guest>, Vec<Bare>), LabError> {
        let own = self.ledger.directory().join("bare");
        let (namespace, mut guests, mut vms) = (&self.hosts[0].namespace, Vec::new(), Vec::new());
        for (id, template) in self.ids().zip(self.templates(say)?) {
            let directory = own.join(id.name());
            let spec = self.bare_spec(id)?;
            let vm = Bare::restore(&self.ledger, namespace, directory, &spec, &template);
            vms.push(runtime.block_on(vm)?);
            guests.push(self.guest(id, &own));
        }
        for guest in &guests {
            guest.wait_until_up()?;
        }
        Ok((guests, vms))
    }

    /// Starts a QEMU on `host` that waits for `vm`.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn await_bare(&self, vm: &Bare, host: &Host) -> Result<Bare, LabError> {
        let name = format!("{}-on-{}", vm.spec.name, host.name);
        let directory = self.ledger.directory().join("bare").join(name);
        let waiting = Start::Waiting;
        Bare::start(&self.ledger, &host.namespace, directory, &vm.spec, waiting).await
    }

    /// The specification of a guest without HCA, which boots.
    fn bare_spec(&self, id: GuestId) -> Result<VmSpec, LabError> {
        let own = self.ledger.directory().join("templates");
        std::fs::create_dir_all(&own).map_err(|source| LabError::File {
            what: "make",
            path: own.clone(),
            source,
        })?;
        let options = SpecOptions {
            gang: GANG.into(),
            hca: false,
            template: None,
        };
        let path = own.join(format!("{}.toml", id.name()));
        write(
            &path,
            &id.spec(&self.stock.image, &self.stock.disk, &options),
        )?;
        VmSpec::load(&path).map_err(|error| LabError::Bare {
            vm: id.name(),
            reason: error.to_string(),
        })
    }

    /// The guests' templates; made if this build has none yet.
    fn templates(&self, say: &dyn Fn(&str)) -> Result<Vec<PathBuf>, LabError> {
        let own = self.ledger.directory().join("templates");
        let orders = self.ids().map(|id| {
            Ok(template::Order {
                spec: self.bare_spec(id)?,
                guest: self.guest(id, &own),
            })
        });
        let orders = orders.collect::<Result<Vec<_>, LabError>>()?;
        let namespace = &self.hosts[0].namespace;
        template::ensure(&self.stock.directory, &self.ledger, namespace, &orders, say)
    }

    /// Kills the daemon of a host with SIGKILL, and starts another after `pause`, as a supervisor
    /// does.
    ///
    /// # Errors
    /// [`LabError::Daemon`] if it does not come up.
    pub fn restart_daemon(&self, host: &Host, pause: Duration) -> Result<(), LabError> {
        host.kill();
        std::thread::sleep(pause);
        host.start(&self.ledger)
    }

    /// Cuts the link between the first two hosts for `time`.
    ///
    /// # Errors
    /// [`LabError::Ledger`].
    pub fn cut_link(&self, time: Duration) -> Result<(), LabError> {
        let [first, second, ..] = &self.hosts[..] else {
            return Ok(());
        };
        network::set_link(&first.namespace, second.name, false)?;
        std::thread::sleep(time);
        network::set_link(&first.namespace, second.name, true)?;
        Ok(())
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Directory of the run.
    pub fn directory(&self) -> &Path {
        self.ledger.directory()
    }

    /// Copies the daemons' logs, the guests' consoles and the journals to the lab's directory.
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn keep_logs(&self) -> Result<PathBuf, LabError> {
        let target = self.logs.join(self.ledger.id());
        // Of an earlier bed of this process, or of a process with the same id.
        std::fs::remove_dir_all(&target).ok();
        command::run(
            "cp",
            ["-r", "--no-preserve=ownership"]
                .map(std::ffi::OsStr::new)
                .into_iter()
                .chain([self.directory().as_os_str(), target.as_os_str()]),
        )
        // Sockets cannot be copied, which `cp` reports at its end.
        .ok();
        Ok(target)
    }

    /// Leaves the bed up when this process ends.
    ///
    /// # Errors
    /// [`LabError::Ledger`].
    pub fn disown(self) -> Result<(), LabError> {
        self.ledger.disown()?;
        for host in &self.hosts {
            host.disown();
        }
        Ok(())
    }

    /// Removes everything and says what is still there.
    ///
    /// # Errors
    /// [`LabError::Ledger`] if something could not be removed.
    pub fn down(self) -> Result<Vec<String>, LabError> {
        let ledger = self.ledger.clone();
        ledger.close()?;
        drop(self);
        Ok(ledger.left_behind())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.ledger.close() {
            eprintln!("take down the test bed: {error}");
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    std::fs::write(path, text).map_err(|source| LabError::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// The second disk. It is kept in the lab's directory, not in that of the run: QEMU opens disks
/// past the page cache, which the memory file system of `/run` may not allow.
fn payload_disk(directory: &LabDir, payload: &Payload) -> Result<PathBuf, LabError> {
    const OLD: Duration = Duration::from_secs(24 * 3600);
    let disks = directory.part("payload")?;
    for entry in std::fs::read_dir(&disks).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|data| data.modified());
        if age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > OLD)) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    let disk = disks.join(format!("{}.raw", payload.key()?));
    if !disk.exists() {
        let _lock = directory.lock()?;
        payload.make(&disk)?;
    }
    Ok(disk)
}

/// The beds of this process.
static OPEN: Mutex<Vec<Ledger>> = Mutex::new(Vec::new());

/// Takes the bed down when this process is asked to end. One thread serves all beds of the
/// process: it must not end the process before every one of them is gone.
fn end_on_signals(ledger: &Ledger) {
    static WATCH: Once = Once::new();
    OPEN.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(ledger.clone());
    WATCH.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        std::thread::spawn(move || {
            let Some(signal) = signals.forever().next() else {
                return;
            };
            eprintln!("signal {signal}: taking the test bed down");
            let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
            for ledger in open.iter() {
                if let Err(error) = ledger.close() {
                    eprintln!("take down the test bed: {error}");
                }
            }
            std::process::exit(128 + signal);
        });
    });
}

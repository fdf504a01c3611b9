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
//! | [`population`] | makes the guests, with the daemons or without |
//! | [`under_test`] | the programs that are under test in the guests |
//! | [`interrupt`] | beds go down with their process |
//! | [`words`] | what daemons and guests' kernels said last |

pub mod bare;
mod error;
pub mod guest;
pub mod host;
pub mod interrupt;
pub mod ledger;
mod network;
mod population;
pub mod requirements;
mod template;
mod under_test;
pub mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command;
use crate::image::Image;
use crate::job::Mpi;
use crate::lab_dir::LabDir;
pub use error::LabError;
use guest::Guest;
use host::{Host, HostPlan};
use ledger::Ledger;
pub use under_test::{payload, programs};

/// Name of the gang that the bed's guests form.
pub const GANG: &str = "job";

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
        let disk = under_test::payload_disk(&directory, &payload(&programs, &apps)?)?;

        let ledger = Ledger::create()?;
        interrupt::end_on_signals(&ledger);
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

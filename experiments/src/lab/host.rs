//! One host of the bed: its daemon's configuration, its daemon, and the `symvirt` command there.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::ledger::{Ledger, LedgerError};
use super::{LabError, network};
use crate::command;

/// Port of the link between daemons.
const PORT: u16 = 7420;
/// Time for a daemon to listen.
const START: Duration = Duration::from_secs(30);

/// A host's place in the bed.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Its name.
    pub name: &'static str,
    /// HCAs in its pool.
    pub hcas: usize,
}

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// Its network namespace.
    pub namespace: String,
    /// Its address on Ethernet.
    pub address: String,
    directory: PathBuf,
    programs: PathBuf,
    daemon: Mutex<Option<Child>>,
}

impl Host {
    pub(super) fn new(
        name: &'static str,
        namespace: String,
        index: usize,
        directory: PathBuf,
        programs: &Path,
    ) -> Self {
        Self {
            name,
            namespace,
            address: network::address(index),
            directory,
            programs: programs.to_owned(),
            daemon: Mutex::default(),
        }
    }

    /// Writes the configurations of all hosts, and certificates for the links between them.
    pub(super) fn configure(
        plans: &[HostPlan],
        directory: &Path,
        programs: &Path,
    ) -> Result<(), LabError> {
        let pki = directory.join("pki");
        let mut init = Command::new(programs.join("symvirt"));
        init.args(["pki", "init", "--dir"]).arg(&pki);
        for (index, plan) in plans.iter().enumerate() {
            init.arg("--host")
                .arg(format!("{}={}", plan.name, network::address(index)));
        }
        command::output(&mut init)?;
        for index in 0..plans.len() {
            let path = directory.join(format!("{}.toml", plans[index].name));
            let text = configuration(plans, index);
            std::fs::write(&path, text).map_err(|source| LabError::File {
                what: "write",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Starts the daemon and waits until it answers.
    pub(super) fn start(&self, ledger: &Ledger) -> Result<(), LabError> {
        let log = self.log();
        let file = |source| LabError::File {
            what: "write",
            path: log.clone(),
            source,
        };
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(file)?;
        let errors = output.try_clone().map_err(file)?;
        let mut command = self.inside(&self.programs.join("symvirtd"));
        command
            .arg("--config")
            .arg(self.directory.join(format!("{}.toml", self.name)))
            .env("RUST_LOG", "info,symvirt_host=debug,symvirt_qmp=debug")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = ledger.making(|| {
            command.spawn().map_err(|source| LedgerError::File {
                what: "start symvirtd for",
                path: self.directory.clone(),
                source,
            })
        })?;
        *self.daemon() = Some(child);
        let deadline = Instant::now() + START;
        while let Err(error) = command::output(self.symvirt().args(["host", "show"])) {
            let ended = match &mut *self.daemon() {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => true,
            };
            if ended || Instant::now() >= deadline {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                return Err(LabError::Daemon {
                    host: self.name,
                    error: error.to_string(),
                    log: log.lines().rev().take(5).collect::<Vec<_>>().join("\n"),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The daemon's process, if it runs.
    pub fn pid(&self) -> Option<Pid> {
        let daemon = self.daemon();
        let id = daemon.as_ref().map(Child::id)?;
        // `ip netns exec` has become the daemon.
        Some(Pid::from_raw(id.cast_signed()))
    }

    /// Kills the daemon as nothing can prevent it.
    pub(super) fn kill(&self) {
        if let Some(mut daemon) = self.daemon().take() {
            // One that has ended already is what was wanted.
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }

    /// Lets the daemon outlive this process.
    pub(super) fn disown(&self) {
        self.daemon().take();
    }

    /// Everything the daemon wrote.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    /// Directory of the daemon's sockets, VM states and journals.
    pub fn state(&self) -> PathBuf {
        self.directory.join(self.name)
    }

    /// A program in this host's namespace.
    pub fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }

    /// `symvirt`, talking to this host's daemon.
    pub fn symvirt(&self) -> Command {
        let mut command = self.inside(&self.programs.join("symvirt"));
        command
            .arg("--socket")
            .arg(self.state().join("symvirtd.sock"));
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It is killed with its namespace; this only collects it.
        self.kill();
    }
}

fn configuration(plans: &[HostPlan], index: usize) -> String {
    let (name, address) = (plans[index].name, network::address(index));
    let mut text = format!(
        r#"host = "{name}"
state_dir = "{name}"
bridge = "br0"
listen = "{address}:{PORT}"

[tls]
ca = "pki/ca.pem"
cert = "pki/{name}.pem"
key = "pki/{name}.key"
"#
    );
    for (other, plan) in plans.iter().enumerate() {
        if other != index {
            let (peer, address) = (plan.name, network::address(other));
            text.push_str(&format!(
                "\n[[peer]]\nname = \"{peer}\"\naddress = \"{address}:{PORT}\"\n"
            ));
        }
    }
    for number in 0..plans[index].hcas {
        text.push_str(&hca(number));
    }
    text
}

/// The HCA stand-in: a NIC that the guest puts soft-RoCE on. Its second function is a device with
/// memory of its own, which QEMU refuses to migrate, as it refuses a VFIO device.
fn hca(number: usize) -> String {
    format!(
        r#"
[[hca]]
name = "hca{number}"
kind = "qemu-devices"
bridge = "ib0"
objects = [
  {{ qom-type = "memory-backend-ram", id = "hcamem", size = 1048576, share = true }},
]
netdevs = [
  {{ type = "tap", id = "hcanet", ifname = "{{tap}}", script = "no", downscript = "no" }},
]
devices = [
  {{ driver = "ivshmem-plain", id = "hcablk", bus = "{{bus}}", addr = "0.1", memdev = "hcamem" }},
  {{ driver = "e1000e", id = "hca", bus = "{{bus}}", addr = "0.0", multifunction = true, netdev = "hcanet", mac = "{{mac}}" }},
]
"#
    )
}

//! A site of one node under Slurm, on this machine: a job is started by `srun`, whose daemon, not
//! the launcher, is the parent of the ranks, and which speaks PMIx with Open MPI and PMI with MPICH.
//!
//! ```text
//!   slurmctld ─► slurmd ─► slurmstepd ─► ranks
//!       ▲                                 PMI, output
//!   symvirt-guest rehearse ─► srun ───────────┘
//! ```
//!
//! Everything it writes is in a temporary folder, its ports are free ones on the loopback, nobody is
//! authenticated; it ends with the [`Site`].

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::job;

/// How long the node may take to offer itself, and each daemon to end.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
/// The node's, whatever the machine has: ranks share them.
const PROCESSORS: u32 = 4;

/// See the module.
pub struct Site {
    folder: tempfile::TempDir,
    /// The node's daemon before the controller's: it is ended first.
    daemons: Vec<Child>,
}

impl Site {
    /// Starts both daemons and waits until the node takes jobs.
    ///
    /// # Errors
    /// What is missing, or what the daemons said if it does not.
    pub fn start() -> anyhow::Result<Site> {
        let mut site = Site {
            folder: tempfile::Builder::new()
                .prefix("symvirt-slurm-")
                .tempdir()?,
            daemons: Vec::new(),
        };
        site.configure()?;
        let controller = site.daemon("slurmctld", &["-D"])?;
        site.daemons.push(controller);
        let node = site.daemon("slurmd", &["-D", "-N", "localhost"])?;
        site.daemons.insert(0, node);
        let begun = Instant::now();
        while !site.is_idle()? {
            if begun.elapsed() > PATIENCE {
                anyhow::bail!("no node after {PATIENCE:?}:\n{}", site.said());
            }
            std::thread::sleep(LOOK);
        }
        Ok(site)
    }

    /// `srun` of a program; `mpi` is what `srun --mpi` takes.
    pub fn srun(&self, mpi: &str, ranks: u32, program: &[&str]) -> Vec<String> {
        let configuration = format!("SLURM_CONF={}", self.configuration().display());
        let (mpi, ranks) = (format!("--mpi={mpi}"), format!("--ntasks={ranks}"));
        let words = ["env", &configuration, "srun", "--quiet", &mpi, &ranks];
        let words = words.iter().chain(program);
        words.map(|word| (*word).to_owned()).collect()
    }

    fn configuration(&self) -> std::path::PathBuf {
        self.folder.path().join("slurm.conf")
    }

    fn configure(&self) -> anyhow::Result<()> {
        let folder = self.folder.path();
        for name in ["state", "spool"] {
            std::fs::create_dir(folder.join(name))?;
        }
        let user = User::from_uid(geteuid())?.map_or_else(|| "root".to_owned(), |user| user.name);
        let (first, second) = (free_port()?, free_port()?);
        std::fs::write(folder.join("cgroup.conf"), CGROUP)?;
        let text = configuration(folder, &user, [first.0, second.0]);
        Ok(std::fs::write(self.configuration(), text)?)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.configuration());
        command
    }

    fn daemon(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        let log = File::create(self.folder.path().join(format!("{program}.log")))?;
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // Debian has both where only root looks.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .spawn()
            .map_err(|error| anyhow::anyhow!("start {program}: {error}"))
    }

    fn is_idle(&self) -> anyhow::Result<bool> {
        let mut command = self.command("sinfo");
        let outcome = job::run(command.args(["--noheader", "--format=%t"]), PATIENCE)?;
        Ok(outcome.stdout.trim() == "idle")
    }

    /// What the daemons have logged.
    fn said(&self) -> String {
        let log = |name| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        ["slurmctld.log", "slurmd.log"].map(log).join("\n")
    }
}

impl Drop for Site {
    /// Jobs first: the ranks of one that hangs are children of neither daemon.
    fn drop(&mut self) {
        let mut cancel = self.command("scancel");
        if job::run(cancel.args(["--partition=all"]), PATIENCE).is_ok() {
            let begun = Instant::now();
            while !matches!(self.is_idle(), Ok(true) | Err(_)) && begun.elapsed() < PATIENCE {
                std::thread::sleep(LOOK);
            }
        }
        for daemon in &mut self.daemons {
            end(daemon);
        }
    }
}

/// Asks a daemon to end, and makes it.
fn end(daemon: &mut Child) {
    // One that has ended meanwhile is not waited for yet: its pid is still its own.
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).ok();
    let begun = Instant::now();
    while matches!(daemon.try_wait(), Ok(None)) {
        if begun.elapsed() > PATIENCE {
            daemon.kill().ok();
        }
        std::thread::sleep(LOOK);
    }
}

/// A port that nobody has, and what keeps it so until the listener is dropped.
fn free_port() -> std::io::Result<(u16, TcpListener)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok((listener.local_addr()?.port(), listener))
}

/// `cgroup.conf(5)`. No plugin of [`configuration`] uses control groups, but `slurmd` looks for what
/// the machine has of them, and does not start where there is none or a mixture of both versions.
const CGROUP: &str = "CgroupPlugin=cgroup/v1\n";

/// `slurm.conf(5)`. The plugins are those that need no other daemon and no cgroup.
fn configuration(folder: &Path, user: &str, [controller, node]: [u16; 2]) -> String {
    let folder = folder.display();
    format!(
        "\
ClusterName=symvirt
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs={PROCESSORS} State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"
    )
}

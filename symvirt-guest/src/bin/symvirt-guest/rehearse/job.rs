//! The job under rehearsal: the launcher's process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tracing::debug;

use crate::exec::Environment;

/// Time for the launcher to end its ranks when asked to.
const GRACE: Duration = Duration::from_secs(10);

/// A running launcher. It stays in our process group: the terminal's Ctrl-C reaches it too, and it
/// may read the terminal.
#[derive(Debug)]
pub struct Job {
    child: Child,
    pid: u32,
    leave: bool,
}

impl Job {
    /// Starts the command with our library before every MPI process, and `socket` as its agent.
    pub fn start(
        command: &[OsString],
        environment: Environment,
        socket: &Path,
    ) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.set)
            .env("SYMVIRT_AGENT_SOCKET", socket)
            .spawn()
            .with_context(|| format!("run {}", program.to_string_lossy()))?;
        let pid = child.id().context("the job ended at once")?;
        Ok(Job {
            child,
            pid,
            leave: false,
        })
    }

    /// The launcher's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the launcher. Cancel-safe.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().await.context("wait for the job")
    }

    /// Ends the launcher and, if it does not do so itself, the given ranks.
    pub async fn kill(&mut self, ranks: &BTreeSet<u32>) -> anyhow::Result<ExitStatus> {
        if self.child.id().is_some() {
            signal(self.pid, Signal::SIGTERM);
        }
        if let Ok(status) = tokio::time::timeout(GRACE, self.child.wait()).await {
            return status.context("wait for the job");
        }
        // Their connections are open: the numbers are still theirs.
        for pid in ranks {
            signal(*pid, Signal::SIGKILL);
        }
        self.child.kill().await.context("kill the job")?;
        self.wait().await
    }

    /// Lets the job outlive this process.
    pub fn leave(&mut self) {
        self.leave = true;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // An early return of ours must not leave a job behind that nobody waits for.
        if !self.leave && self.child.id().is_some() {
            signal(self.pid, Signal::SIGTERM);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    let Ok(raw) = i32::try_from(pid) else { return };
    if let Err(error) = kill(Pid::from_raw(raw), signal) {
        debug!(pid, %signal, %error, "not signalled");
    }
}

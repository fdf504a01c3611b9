//! A process that outlives its parent, and that may not be ours to wait for.
//!
//! A process id alone says nothing after a while: it is used again. With the start time it is
//! unique until the machine boots, and with the boot's own id for ever.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How often a process that is no child is looked at while its end is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Identity of a process, for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since the boot.
    start: u64,
    /// The boot.
    boot: String,
}

impl ProcessIdentity {
    /// The process that has this id now; None if none has, or if it has ended and waits for its
    /// parent.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ESRCH) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some((state, start)) = state_and_start(&stat) else {
            return Err(io::Error::other(format!(
                "/proc/{pid}/stat has an unknown form"
            )));
        };
        if matches!(state, "Z" | "X") {
            return Ok(None);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Some(Self {
            pid,
            start,
            boot: boot.trim().to_owned(),
        }))
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(Self::of(self.pid)?.as_ref() == Some(self))
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// When `/proc` cannot be read or the signal is not permitted.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.is_alive()? {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for its end, at most `limit`; whether it has ended. Cancel-safe.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub async fn ended_within(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        while self.is_alive()? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(true)
    }

    /// Whether `word` is one of its arguments, or part of one.
    pub fn has_argument(&self, word: &str) -> bool {
        fs::read(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    }
}

/// Fields 3 and 22 of `/proc/PID/stat`; the name before them may contain anything.
fn state_and_start(stat: &str) -> Option<(&str, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// Starts a program in a session of its own, so that neither the daemon's end nor a terminal's
/// signals reach it. What it prints goes to `log`.
///
/// # Errors
/// When it cannot be started; a program that does not exist ends at once instead, and says so in
/// the log.
pub fn spawn_detached(program: &Path, arguments: &[String], log: &Path) -> io::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    // setsid(1) replaces itself by the program: the id stays.
    Command::new("setsid")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(false)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1";
        assert_eq!(state_and_start(stat), Some(("S", 4711)));
    }

    #[test]
    fn an_id_that_is_used_again_is_another_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let us = ProcessIdentity::of(own).unwrap().unwrap();
        assert!(us.is_alive().unwrap());
        let earlier = ProcessIdentity {
            start: us.start - 1,
            ..us.clone()
        };
        assert!(!earlier.is_alive().unwrap());
        // Would end this test if the start time did not count.
        earlier.signal(Signal::SIGKILL).unwrap();
        let before_boot = ProcessIdentity {
            boot: "another".into(),
            ..us
        };
        assert!(!before_boot.is_alive().unwrap());
    }

    #[tokio::test]
    async fn a_detached_process_has_its_own_session_and_ends_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let arguments = ["-c".into(), "echo begun; exec sleep 1000".into()];
        let mut child = spawn_detached(Path::new("/bin/sh"), &arguments, &log).unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let process = ProcessIdentity::of(pid).unwrap().unwrap();
        let deadline = Instant::now() + LIMIT;
        while fs::read_to_string(&log).unwrap() != "begun\n" {
            assert!(Instant::now() < deadline, "nothing was logged");
            tokio::task::yield_now().await;
        }
        let session = nix::unistd::getsid(Some(Pid::from_raw(pid))).unwrap();
        assert_eq!(session.as_raw(), pid);
        assert!(
            !process
                .ended_within(Duration::from_millis(20))
                .await
                .unwrap()
        );
        process.signal(Signal::SIGTERM).unwrap();
        // Also while nobody has waited for it yet.
        assert!(process.ended_within(LIMIT).await.unwrap());
        child.wait().await.unwrap();
    }
}

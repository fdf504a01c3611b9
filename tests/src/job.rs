//! Runs a command within a time limit and keeps what it says.
//!
//! What has not ended in time is asked to (SIGTERM, so that a launcher takes its ranks with it),
//! then killed; before that the backtraces of all its processes are taken, where gdb is there.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::family::{self, Member};

/// How long an asked process may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    /// `None` if the time limit ended it.
    pub status: Option<ExitStatus>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    /// Backtraces of all processes, if the time limit ended it.
    pub backtraces: String,
}

impl Outcome {
    /// Whether it ended by itself, in time, with success.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The line by which a program of `tests/apps` tells that it kept its promise.
    pub fn ok_line(&self, program: &str) -> Option<&str> {
        let start = format!("OK {program} ");
        self.stdout.lines().find(|line| line.starts_with(&start))
    }

    /// Whether the time limit found one of its processes inside `function`.
    pub fn hung_in(&self, function: &str) -> bool {
        let mut frames = self.backtraces.lines().filter(|line| line.starts_with('#'));
        frames.any(|frame| frame.split_whitespace().any(|word| word == function))
    }

    /// Everything, for a failure message.
    pub fn describe(&self) -> String {
        let end = match self.status {
            Some(status) => status.to_string(),
            None => "ended by the time limit".to_owned(),
        };
        format!(
            "{end} after {:.1} s\n--- stdout\n{}\n--- stderr\n{}\n{}",
            self.took.as_secs_f64(),
            tail(&self.stdout),
            tail(&self.stderr),
            self.backtraces
        )
    }
}

/// The end of a long text: failures are told last.
fn tail(text: &str) -> &str {
    const KEPT: usize = 6000;
    let cut = text.len().saturating_sub(KEPT);
    let cut = (cut..text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    &text[cut..]
}

/// Runs `command` for at most `limit`.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn run(command: &mut Command, limit: Duration) -> std::io::Result<Outcome> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let pid = Pid::from_raw(child.id().cast_signed());
    let ended = waiter(child);
    let mut backtraces = String::new();
    let status = match ended.recv_timeout(limit) {
        Ok(status) => Some(status?),
        Err(_) => {
            let family = family::of(pid);
            backtraces = family.iter().map(|member| backtrace(member.pid)).collect();
            stop(pid, &family, &ended);
            None
        }
    };
    let took = started.elapsed();
    let text = |receiver: mpsc::Receiver<String>| receiver.recv_timeout(GRACE).unwrap_or_default();
    Ok(Outcome {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
        took,
        backtraces,
    })
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is worth more than the error.
            pipe.read_to_end(&mut bytes).ok();
        }
        sender.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receiver
}

fn waiter(mut child: Child) -> mpsc::Receiver<std::io::Result<ExitStatus>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait()));
    receiver
}

fn stop(pid: Pid, family: &[Member], ended: &mpsc::Receiver<std::io::Result<ExitStatus>>) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // The process may have ended meanwhile: then there is nobody to signal. Those below it that
        // are ours, if it is not (`sudo`).
        if kill(pid, signal) == Err(Errno::EPERM) {
            family.iter().for_each(|below| _ = kill(below.pid, signal));
        }
        if ended.recv_timeout(GRACE).is_ok() {
            break;
        }
    }
    for left in family.iter().filter(|member| member.is_alive()) {
        kill(left.pid, Signal::SIGKILL).ok();
    }
}

fn backtrace(pid: Pid) -> String {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    // The launcher and the shell have nothing to tell.
    if [
        "mpirun",
        "mpirun.mpich",
        "mpiexec.hydra",
        "hydra_pmi_proxy",
        "orterun",
        "orted",
        "prterun",
        "sh",
        "bash",
        "dash",
    ]
    .contains(&name.as_str())
        || !Path::new("/usr/bin/gdb").exists()
    {
        return String::new();
    }
    let output = Command::new("timeout")
        .args([
            "20",
            "gdb",
            "-batch",
            "-nx",
            "-p",
            &pid.to_string(),
            "-ex",
            "thread apply all bt",
        ])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let frames: Vec<&str> = text
        .as_deref()
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with('#') || line.starts_with("Thread"))
        .collect();
    format!("--- backtrace of {name} ({pid})\n{}\n", frames.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended_and_tells_where_it_hung() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 1000; :"]);
        let outcome = run(&mut command, Duration::from_millis(300)).expect("sh");
        assert_eq!(outcome.status, None);
        let at = ["clock_nanosleep", "__GI___clock_nanosleep"];
        assert!(at.iter().any(|at| outcome.hung_in(at)), "{outcome:?}");
        assert!(!outcome.hung_in("PMIx_Init"), "{outcome:?}");
        // What the shell had started is gone, too: it would hold its end of the pipe.
        assert_eq!(outcome.stdout, "begun\n");
    }
}

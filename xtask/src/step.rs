//! One program, run to its end, with nothing left behind.
//!
//! Each program leads a process group of its own: Ctrl-C and SIGTERM are passed on to all of it,
//! and it is given time to clean up before it is killed. Orphans of the program become children
//! of this process (it is their subreaper), so that what stays behind is seen, named and ended.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Time between the request to end and SIGKILL: a test bed takes down its guests in it.
const PATIENCE: Duration = Duration::from_secs(45);
/// Time for children of a program that has ended to end as well.
const LINGER: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// How a step ended.
#[derive(Debug)]
pub enum Ended {
    /// Exit status 0.
    Well,
    /// Another status, or too late, or with processes left behind.
    Badly(String),
    /// By Ctrl-C or SIGTERM to this process.
    Interrupted,
}

/// A program to run.
pub struct Step {
    name: String,
    command: Command,
    limit: Duration,
    interactive: bool,
    quiet: bool,
    leaves: bool,
}

/// Makes orphans of our programs our children.
///
/// # Errors
/// What the kernel said.
pub fn adopt_orphans() -> anyhow::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("become subreaper")
}

impl Step {
    /// `command`, called `name`, with half an hour to end.
    pub fn new(name: impl Into<String>, command: Command) -> Self {
        Self {
            name: name.into(),
            command,
            limit: Duration::from_secs(1800),
            interactive: false,
            quiet: false,
            leaves: false,
        }
    }

    /// With another time limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The program keeps the terminal: its own Ctrl-C, its own input.
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// What it writes is heard, and not shown.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// What it starts is to outlive it.
    pub fn leaving_processes(mut self) -> Self {
        self.leaves = true;
        self
    }

    /// Runs it; its output goes where ours goes.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(self) -> anyhow::Result<Ended> {
        self.run_with(None)
    }

    /// Runs it and shows every line that it writes, on either of its outputs, to `hear` as well.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run_heard(self, hear: &mut (dyn FnMut(&str) + Send)) -> anyhow::Result<Ended> {
        self.run_with(Some(hear))
    }

    fn run_with(mut self, hear: Option<&mut (dyn FnMut(&str) + Send)>) -> anyhow::Result<Ended> {
        let signalled = Arc::new(AtomicUsize::new(0));
        let mut registered = Vec::new();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let number = signal as i32;
            let flag = signal_hook::flag::register_usize(
                number,
                Arc::clone(&signalled),
                number.unsigned_abs() as usize,
            );
            registered.push(flag.context("register for signals")?);
        }
        if !self.interactive {
            self.command.process_group(0).stdin(Stdio::null());
        }
        let mut heard = None;
        if hear.is_some() {
            let (reader, writer) = std::io::pipe().context("make a pipe")?;
            let other = writer.try_clone().context("share a pipe")?;
            self.command.stdout(other).stderr(writer);
            heard = Some(reader);
        }
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        // The command keeps its ends of the pipe, which would then never end.
        self.command
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        let quiet = self.quiet;
        let ended = thread::scope(|scope| {
            if let (Some(hear), Some(output)) = (hear, heard) {
                scope.spawn(move || {
                    let lines = BufReader::new(output).split(b'\n');
                    for line in lines.map_while(Result::ok) {
                        let line = String::from_utf8_lossy(&line);
                        if !quiet {
                            println!("{line}");
                        }
                        hear(&line);
                    }
                });
            }
            let ended = self.wait(&mut child, &signalled);
            // Also ends the reader, whose pipe a left-behind process may hold.
            let left = if self.leaves {
                Vec::new()
            } else {
                end_orphans()
            };
            ended.map(|ended| match ended {
                Ended::Well if !left.is_empty() => {
                    Ended::Badly(format!("left behind (and killed): {}", left.join(", ")))
                }
                Ended::Well | Ended::Badly(_) | Ended::Interrupted => ended,
            })
        });
        for id in registered {
            signal_hook::low_level::unregister(id);
        }
        ended
    }

    fn wait(&self, child: &mut Child, signalled: &AtomicUsize) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(if status.success() {
                    Ended::Well
                } else {
                    Ended::Badly(Status(status).to_string())
                });
            }
            if signalled.load(Ordering::Relaxed) != 0 {
                self.end(child, Signal::SIGINT)?;
                return Ok(Ended::Interrupted);
            }
            if Instant::now() >= deadline {
                self.end(child, Signal::SIGTERM)?;
                return Ok(Ended::Badly(format!("not finished after {:?}", self.limit)));
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the group to end, waits, then kills it.
    fn end(&self, child: &mut Child, signal: Signal) -> anyhow::Result<()> {
        let group = Pid::from_raw(child.id().cast_signed());
        if !self.interactive {
            // ESRCH: it has just ended.
            killpg(group, signal).ok();
        } else if signal != Signal::SIGINT {
            kill(group, signal).ok();
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        if !self.interactive {
            killpg(group, Signal::SIGKILL).ok();
        }
        child.kill().ok();
        child.wait()?;
        Ok(())
    }
}

struct Status(ExitStatus);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Waits a moment for our remaining children, then kills them; names those that were killed.
fn end_orphans() -> Vec<String> {
    let deadline = Instant::now() + LINGER;
    loop {
        reap();
        let children = children();
        if children.is_empty() {
            return Vec::new();
        }
        if Instant::now() >= deadline {
            break;
        }
        thread::sleep(POLL);
    }
    let mut named = Vec::new();
    // Killing one makes its children ours: again, until there are none.
    for _ in 0..100 {
        let children = children();
        if children.is_empty() {
            break;
        }
        for pid in children {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            named.push(format!("{} (pid {pid})", name.trim()));
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        thread::sleep(POLL);
        reap();
    }
    named
}

/// Collects children that have ended. Only called when the step's own child was waited for.
fn reap() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task");
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<i32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    // One test: orphans of all tests of this process would be taken for this one's.
    #[test]
    fn what_a_program_leaves_behind_is_named_and_ended() {
        adopt_orphans().unwrap();
        let step = Step::new("tidy", shell("sleep 0.1 & wait"));
        assert!(matches!(step.run().unwrap(), Ended::Well));

        let step = Step::new("untidy", shell("setsid sleep 987 & exit 0"));
        match step.run().unwrap() {
            Ended::Badly(why) => assert!(why.contains("sleep"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(children(), Vec::<i32>::new());

        let mut heard = Vec::new();
        let step = Step::new("slow", shell("echo begun; echo loudly >&2; sleep 987"));
        let ended = step
            .within(Duration::from_millis(300))
            .run_heard(&mut |line| heard.push(line.to_owned()))
            .unwrap();
        assert!(matches!(ended, Ended::Badly(_)), "{ended:?}");
        assert_eq!(heard, ["begun", "loudly"]);
        assert_eq!(children(), Vec::<i32>::new());
    }
}

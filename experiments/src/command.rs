//! Running other programs: no shell is ever composed, and a failure carries what the program
//! said.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Why a program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// The program with its arguments.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It said no.
    #[error("{program}: {status}{said}")]
    Failed {
        /// The program with its arguments.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote.
        said: String,
    },
    /// It did not end in time; it was killed.
    #[error("{program}: not finished after {limit:?}, killed")]
    TimedOut {
        /// The program with its arguments.
        program: String,
        /// How long it had.
        limit: Duration,
    },
}

/// Runs to the end and returns standard output.
///
/// # Errors
/// [`CommandError`] with the end of standard error if the exit status is not zero.
pub fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, CommandError> {
    let mut command = Command::new(program);
    command.args(arguments);
    output(&mut command)
}

/// Like [`run`], for a command that was prepared otherwise.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<String, CommandError> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CommandError::Start {
            program: shown.clone(),
            source,
        })?;
    checked(shown, output)
}

/// Like [`output`], with `input` on standard input.
///
/// # Errors
/// As [`run`].
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String, CommandError> {
    let shown = show(command);
    let start = |source| CommandError::Start {
        program: shown.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let pipe = child.stdin.take();
    if let Some(mut pipe) = pipe {
        pipe.write_all(input).map_err(start)?;
    }
    let output = child.wait_with_output().map_err(start)?;
    checked(shown, output)
}

/// Like [`output`], but the program is killed after `limit`.
///
/// # Errors
/// As [`run`], and [`CommandError::TimedOut`].
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String, CommandError> {
    let shown = show(command);
    let start = |source| CommandError::Start {
        program: shown.clone(),
        source,
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // The output is collected by another thread, so that a full pipe can't make the wait endless.
    let collector = std::thread::spawn(move || child.wait_with_output());
    let deadline = Instant::now() + limit;
    while !collector.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let timed_out = !collector.is_finished();
    if timed_out {
        // It may have ended in this instant; then there is nothing to kill.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
    }
    let output = collector
        .join()
        .expect("invariant: the collector only waits")
        .map_err(start)?;
    if timed_out {
        return Err(CommandError::TimedOut {
            program: shown,
            limit,
        });
    }
    checked(shown, output)
}

fn checked(program: String, output: Output) -> Result<String, CommandError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    let tail: Vec<&str> = said.lines().rev().take(12).collect();
    let said: String = tail
        .iter()
        .rev()
        .map(|line| format!("\n    {line}"))
        .collect();
    Err(CommandError::Failed {
        program,
        status: output.status.to_string(),
        said,
    })
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let mut shown = words.join(" ");
    if shown.chars().count() > 160 {
        shown = shown.chars().take(160).chain(['…']).collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let error = run("ls", ["/no/such/place"]).unwrap_err().to_string();
        assert!(
            error.starts_with("ls /no/such/place: exit status: 2"),
            "{error}"
        );
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let error = output_within(&mut command, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
    }
}

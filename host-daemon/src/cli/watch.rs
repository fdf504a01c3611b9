//! Live progress: a few lines that are redrawn on a terminal, a line for each change elsewhere.
//! Ctrl-C detaches; the operation goes on.

use std::io::{IsTerminal, Write};

use super::patience::{again, may_return};
use super::{CliError, Daemon, Exit, print_json, table};
use crate::api::model::OperationInfo;
use crate::operation::Phase;

/// Follows `operation` until it ends or the user detaches.
pub(super) async fn follow(
    daemon: &Daemon,
    operation: OperationInfo,
    json: bool,
) -> Result<Exit, CliError> {
    let id = operation.id.clone();
    let mut screen = Screen::new(json);
    screen.show(&operation).map_err(CliError::Output)?;
    let path = format!("/v1/operations/{id}/events");
    let listen = || daemon.events(&path);
    let mut events = match listen().await {
        Err(error) if may_return(&error) => again(listen).await?,
        events => events?,
    };
    let mut last = operation;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while !last.phase.is_terminal() {
        tokio::select! {
            next = events.next::<OperationInfo>() => match next {
                Some(next) => {
                    screen.show(&next).map_err(CliError::Output)?;
                    last = next;
                }
                None => events = again(listen).await?,
            },
            _ = &mut interrupted => {
                eprintln!(
                    "\ndetached, {id} goes on: `symvirt watch {id}` follows it, \
                     `symvirt cancel {id}` undoes it"
                );
                return Ok(Exit::Detached);
            }
        }
    }
    screen.finish(&last).map_err(CliError::Output)?;
    Ok(Exit::of(last.phase))
}

struct Screen {
    json: bool,
    redraws: bool,
    drawn: usize,
    phase: Option<Phase>,
    told: String,
}

impl Screen {
    fn new(json: bool) -> Self {
        let redraws = !json && std::io::stdout().is_terminal();
        Self {
            json,
            redraws,
            drawn: 0,
            phase: None,
            told: String::new(),
        }
    }

    fn show(&mut self, operation: &OperationInfo) -> std::io::Result<()> {
        if self.json {
            print_json(&serde_json::json!(operation));
            return std::io::stdout().flush();
        }
        if !self.redraws {
            return self.tell(operation);
        }
        let lines = table::live(operation);
        let mut out = std::io::stdout().lock();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn)?;
        }
        // Without wrapping: a line that takes two rows would be counted as one.
        write!(out, "\x1b[?7l")?;
        for line in &lines {
            writeln!(out, "\x1b[2K{line}")?;
        }
        write!(out, "\x1b[?7h\x1b[J")?;
        self.drawn = lines.len();
        out.flush()
    }

    /// One line for each new phase or step in it, and one for each fifth of the first pass.
    fn tell(&mut self, operation: &OperationInfo) -> std::io::Result<()> {
        let (line, step) = table::line(operation);
        if self.phase == Some(operation.phase) && step == self.told {
            return Ok(());
        }
        self.phase = Some(operation.phase);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        self.told = step;
        out.flush()
    }

    fn finish(&mut self, operation: &OperationInfo) -> std::io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        write!(out, "{}", table::operation(operation))?;
        out.flush()
    }
}

//! `symvirt`, a client of the daemon's local API.
//!
//! | module | commands |
//! |---|---|
//! | [`arguments`] | all of them, and their help |
//! | [`daemon`] | the connection to the daemon |
//! | [`vms`] | `vm`, `gang`, `host` |
//! | [`operations`] | `migrate`, `switch`, `status`, `cancel` |
//! | [`watch`] | live progress |
//! | [`patience`] | what commands do while the daemon is away |
//! | [`table`] | how operations and their reports look |

mod arguments;
mod daemon;
mod operations;
mod patience;
mod table;
mod vms;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::api::error::{Problem, chain};
use crate::config::ConfigError;
use crate::http::HttpError;
use crate::operation::Phase;
use crate::peer::TlsError;
use crate::pki::PkiError;
use arguments::{Arguments, Command, GangCommand, HostCommand, PkiCommand, VmCommand};
use daemon::Daemon;

/// Why a command did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The daemon refuses.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// The daemon cannot be reached.
    #[error("reach symvirtd at {place}: {reason}")]
    Daemon {
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
    /// No socket was named and none is there.
    #[error(
        "no socket of symvirtd at {usual}: give --socket PATH or set SYMVIRT_SOCKET; or ask the \
         daemon of another host by --remote HOST=ADDRESS:PORT", usual = daemon::USUAL
    )]
    NoSocket,
    /// Nobody says who asks.
    #[error("--remote needs --identity PATH; `symvirt pki user` makes one")]
    NoIdentity,
    /// The user's certificate.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The daemon's answer.
    #[error("talk to symvirtd")]
    Http(#[source] HttpError),
    /// The daemon ended while it was asked to begin something, and was not seen again.
    #[error("whether the operation has begun is not known, `symvirt status` will show it")]
    Unanswered(#[source] Box<CliError>),
    /// No id for a request.
    #[error("make up an id for the request: {0}")]
    Random(getrandom::Error),
    /// A VM's file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The terminal or pipe went away.
    #[error("write the output")]
    Output(#[source] std::io::Error),
}

impl From<HttpError> for CliError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Refused(problem) => Self::Refused(problem),
            other => Self::Http(other),
        }
    }
}

/// How a command ended, as its exit status says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// As asked.
    Done = 0,
    /// The command could not be carried out: no daemon, no connection, unreadable file.
    Failed = 1,
    /// The daemon refused; nothing was changed. (2 is a usage error.)
    Refused = 3,
    /// The command detached from an operation that goes on.
    Detached = 4,
    /// The operation was rolled back.
    RolledBack = 10,
    /// The job runs on less than it was to have.
    Degraded = 11,
    /// Somebody has to act.
    NeedsOperator = 12,
}

impl Exit {
    fn of(phase: Phase) -> Self {
        match phase {
            Phase::RolledBack => Self::RolledBack,
            Phase::Degraded => Self::Degraded,
            Phase::NeedsOperator => Self::NeedsOperator,
            _ => Self::Done,
        }
    }
}

/// Runs the command line of this process.
pub async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match run(arguments).await {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(CliError::Refused(problem)) => {
            if json {
                print_json(&serde_json::json!({ "error": problem }));
            } else {
                eprintln!("symvirt: {}", problem.message);
                if !problem.hint.is_empty() {
                    eprintln!("  {}", problem.hint);
                }
            }
            ExitCode::from(Exit::Refused as u8)
        }
        Err(error) => {
            let text = chain(&error);
            if json {
                let problem = Problem::new("failed", text, "");
                print_json(&serde_json::json!({ "error": problem }));
            } else {
                eprintln!("symvirt: {text}");
            }
            ExitCode::from(Exit::Failed as u8)
        }
    }
}

/// Prints a line. A reader that has gone away wants no more: the command ends.
fn say(line: impl std::fmt::Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let status = if error.kind() == std::io::ErrorKind::BrokenPipe {
            141
        } else {
            1
        };
        std::process::exit(status);
    }
}

fn print_json(value: &serde_json::Value) {
    say(value);
}

async fn run(arguments: Arguments) -> Result<Exit, CliError> {
    let json = arguments.json;
    if let Command::Pki(command) = arguments.command {
        return pki(command, json);
    }
    let daemon = Daemon::new(arguments.socket, arguments.remote, arguments.identity)?;
    match arguments.command {
        Command::Pki(command) => pki(command, json),
        Command::Vm(VmCommand::Start { specs }) => vms::start(&daemon, &specs, json).await,
        Command::Vm(VmCommand::Stop { names }) => vms::stop(&daemon, &names, json).await,
        Command::Vm(VmCommand::Resume { name, .. }) => vms::resume(&daemon, &name, json).await,
        Command::Vm(VmCommand::List) => vms::list(&daemon, json).await,
        Command::Gang(GangCommand::List) => vms::gangs(&daemon, json).await,
        Command::Host(HostCommand::Show) => vms::host(&daemon, json).await,
        Command::Migrate(migrate) => operations::migrate(&daemon, migrate, json).await,
        Command::Switch(switch) => operations::switch(&daemon, switch, json).await,
        Command::Status { operation } => operations::status(&daemon, operation, json).await,
        Command::Watch { operation } => operations::watch(&daemon, operation, json).await,
        Command::Cancel { operation } => operations::cancel(&daemon, &operation, json).await,
        Command::Release {
            operation,
            coordinator_is_gone,
        } => operations::release(&daemon, &operation, coordinator_is_gone, json).await,
    }
}

fn pki(command: PkiCommand, json: bool) -> Result<Exit, CliError> {
    let files = match command {
        PkiCommand::Init { dir, hosts } => crate::pki::init(&dir, &hosts)?,
        PkiCommand::User { name, role, dir } => crate::pki::user(&dir, &name, role.into())?,
    };
    if json {
        print_json(&serde_json::json!({ "files": files }));
    } else {
        for file in files {
            say(file.display());
        }
    }
    Ok(Exit::Done)
}

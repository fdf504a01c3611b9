//! `symvirt-guest`: the in-guest program beside `libsymvirt.so`.
//!
//! | command | does |
//! |---|---|
//! | `agent` | speaks for the ranks of this guest towards the host |
//! | `exec` | runs a command so that its MPI processes can be moved |
//! | `status` | shows ranks, transports and devices of this guest |
//! | `doctor` | explains whether a job can be moved, and what stands in the way |
//! | `rehearse` | cycles the transports of a job on one machine, without VM and daemon |
#![forbid(unsafe_code)]

mod agent;
mod doctor;
mod exec;
mod rehearse;
mod status;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// In-guest part of SymVirt: moves MPI jobs between interconnects.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Agent(agent::Args),
    Exec(exec::Args),
    Status(status::Args),
    Rehearse(rehearse::Args),
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match &cli.command {
        Command::Agent(_) => "info",
        Command::Exec(_) | Command::Status(_) | Command::Rehearse(_) | Command::Doctor(_) => "warn",
    };
    let filter = EnvFilter::try_from_env("SYMVIRT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    let done = match cli.command {
        Command::Exec(args) => exec::run(args).map(|()| ExitCode::SUCCESS),
        Command::Status(args) => status::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Agent(args) => block_on(agent::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Rehearse(args) => block_on(rehearse::run(args)),
        Command::Doctor(args) => block_on(doctor::run(args)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("symvirt-guest: {error:#}");
        ExitCode::FAILURE
    })
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // Threads that wait for a device must not hold up the end.
    runtime.shutdown_background();
    done
}

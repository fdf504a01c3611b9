//! `symvirtd`, the daemon of a host.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use symvirt_host::config::HostConfig;
use symvirt_host::daemon;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Moves gangs of VMs between hosts. Runs in the foreground; the VMs it starts outlive it.
/// `RUST_LOG` sets what it logs (default: info).
#[derive(Parser)]
#[command(name = "symvirtd", version)]
struct Arguments {
    /// Configuration of this host
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("symvirtd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = HostConfig::load(&arguments.config)?;
    if arguments.check {
        println!("{}: host {}", arguments.config.display(), config.host);
        return Ok(());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => {
                if let Err(error) = interrupted {
                    tracing::error!(%error, "wait for SIGINT");
                }
            }
        }
        tracing::info!("ending; the VMs run on");
    };
    daemon::run(config, shutdown).await?;
    Ok(())
}

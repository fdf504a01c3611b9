//! `symvirt-bench`: the library's overhead, and what a switch costs, on this machine.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use symvirt_tests::bench::{overhead, scale, switch};

/// Measures SymVirt on this machine; nothing else should run meanwhile.
#[derive(Parser, Debug)]
#[command(version, about)]
enum Cli {
    /// What a message costs more with the library than without
    Overhead(overhead::Options),
    /// How long a job stands still for a switch, in both orders
    Switch(switch::Options),
    /// What a switch costs on more and more ranks
    Scale(scale::Options),
}

fn main() -> ExitCode {
    let kept = match Cli::parse() {
        Cli::Overhead(options) => overhead::run(&options),
        Cli::Switch(options) => switch::run(&options),
        Cli::Scale(options) => scale::run(&options),
    };
    match kept {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("symvirt-bench: a limit of the design is exceeded");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("symvirt-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

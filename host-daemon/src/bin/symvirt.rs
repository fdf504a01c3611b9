//! `symvirt`, the command line of `symvirtd`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    symvirt_host::cli::main().await
}

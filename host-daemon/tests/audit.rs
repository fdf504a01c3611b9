//! What the log says of calls that change something.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;

use std::process::Stdio;

use daemons::{Bed, LIMIT};
use hyper::Method;
use symvirt_host::api::model::{HostInfo, OperationInfo};
use symvirt_host::daemon::socket_path;
use symvirt_host::http;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;

#[tokio::test]
async fn who_asked_for_what_and_was_answered_how_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(folder.path());
    let config = bed.config("a", "pki", "1GiB");
    let file = folder.path().join("a.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_symvirtd"))
        .arg("--config")
        .arg(&file)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let mut line_with = async |what: &str| {
        let found = async {
            loop {
                let line = log.next_line().await.unwrap().expect("the log ends");
                assert!(!line.contains("/v1/host"), "nothing was changed: {line}");
                if line.contains(what) {
                    return line;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap()
    };
    line_with("serving").await;
    let socket = socket_path(&config.state_dir);
    let stream = UnixStream::connect(socket).await.unwrap();
    let mut sender = http::connect(stream).await.unwrap();
    let path = "/v1/host";
    let shown = http::exchange::<(), HostInfo>(&mut sender, Method::GET, path, None).await;
    shown.unwrap();
    let path = "/v1/operations/a-00007";
    let asked = http::exchange::<(), OperationInfo>(&mut sender, Method::DELETE, path, None).await;
    asked.unwrap_err();
    let caller = format!("uid {}, pid {}", nix::unistd::geteuid(), std::process::id());
    let asked = line_with("audit: cancel operation").await;
    assert!(
        asked.contains(&caller) && asked.contains("a-00007"),
        "{asked}"
    );
    let answered = line_with("audit: answered").await;
    assert!(
        answered.contains(&caller) && answered.contains("404"),
        "{answered}"
    );
    daemon.kill().await.unwrap();
}

//! What the log says of calls that change something.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;
mod namespace;

use daemons::Bed;
use hyper::Method;
use namespace::inside_namespace;
use symvirt_host::api::model::{HostInfo, OperationInfo};
use symvirt_host::http;
use tokio::net::UnixStream;

#[tokio::test]
async fn who_asked_for_what_and_was_answered_how_is_in_the_log() {
    if !inside_namespace("who_asked_for_what_and_was_answered_how_is_in_the_log") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Bed::new(folder.path()).start_logged("a").await;
    let socket = daemon.config.socket();
    let stream = UnixStream::connect(socket).await.unwrap();
    let mut sender = http::connect(stream).await.unwrap();
    let path = "/v1/host";
    let shown = http::exchange::<(), HostInfo>(&mut sender, Method::GET, path, None).await;
    shown.unwrap();
    let path = "/v1/operations/a-00007";
    let asked = http::exchange::<(), OperationInfo>(&mut sender, Method::DELETE, path, None).await;
    asked.unwrap_err();
    let caller = format!("uid {}, pid {}", nix::unistd::geteuid(), std::process::id());
    // What changes nothing is not noted.
    let noted = daemon
        .line_with("audit: cancel operation", "/v1/host")
        .await;
    assert!(
        noted.contains(&caller) && noted.contains("a-00007"),
        "{noted}"
    );
    let answered = daemon.line_with("audit: answered", "/v1/host").await;
    assert!(
        answered.contains(&caller) && answered.contains("404"),
        "{answered}"
    );
}

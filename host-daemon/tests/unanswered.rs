//! A daemon that ends between what it begins and its answer, and the command that asked. No real one
//! can be made to end right then: what is asked here is a socket.

#![allow(clippy::unwrap_used)] // A test that fails may panic.

use std::process::Output;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const LIMIT: Duration = Duration::from_secs(60);

/// The first line of the request that comes next, and its connection.
async fn asked(listener: &UnixListener) -> (String, UnixStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    // To the end of its body, which is an object in an object.
    while !request.ends_with(b"}}") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let text = String::from_utf8(request).unwrap();
    (text.lines().next().unwrap().to_owned(), stream)
}

#[tokio::test]
async fn a_command_whose_daemon_ends_before_it_answers_asks_the_next_for_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("symvirtd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_symvirt"))
        .arg("--socket")
        .arg(&socket)
        .args(["--json", "migrate", "job", "--to", "b", "--detach"])
        .kill_on_drop(true)
        .output();
    let daemons = async {
        let (first, stream) = asked(&listener).await;
        drop(stream);
        drop(listener);
        std::fs::remove_file(&socket).unwrap();
        // Long enough for the command to find nobody.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let listener = UnixListener::bind(&socket).unwrap();
        let (second, mut stream) = asked(&listener).await;
        let request = json!({ "operation": "migrate", "gang": "job", "to": "b" });
        let begun = json!({
            "id": "a-00001", "coordinator": "a", "request": request, "phase": "prepare",
            "plan": {
                "id": "a-00001", "request": request, "vms": [], "ranks": true,
                "interconnect": "native", "planned_ms": 7,
            },
            "phase_since_ms": 7, "cancelled": false, "reason": null, "report": null,
            "progress": symvirt_host::api::model::Progress::default(),
        });
        let begun = begun.to_string();
        let length = begun.len();
        let answer = format!("HTTP/1.1 202 Accepted\r\ncontent-length: {length}\r\n\r\n{begun}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        (first, second)
    };
    let both = async { tokio::join!(command, daemons) };
    let (output, (first, second)) = tokio::time::timeout(LIMIT, both).await.unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{said}");
    assert!(said.contains("waiting for it to be there again"), "{said}");
    let shown: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(shown["id"], "a-00001");
    assert!(
        first.starts_with("POST /v1/operations?request_id="),
        "{first}"
    );
    assert_eq!(first, second);
}

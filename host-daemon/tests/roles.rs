//! Users at other machines: what their certificates let them ask for, and what the log says of it.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;
mod namespace;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use daemons::{Bed, LIMIT, Logged};
use namespace::inside_namespace;
use serde_json::Value;
use symvirt_host::config::{Role, TlsFiles};
use symvirt_host::http::{self, HttpError};
use symvirt_host::peer::{self, Tls};
use symvirt_host::pki;
use tokio::process::Command;

/// A daemon of host a, and the certificates of its users.
struct Served {
    daemon: Logged,
    folder: PathBuf,
}

impl Served {
    async fn start(folder: &Path) -> Self {
        let mut daemon = Bed::new(folder).start_logged("a").await;
        daemon.line_with("listening", "").await;
        let folder = folder.to_owned();
        Self { daemon, folder }
    }

    async fn line_with(&mut self, what: &str) -> String {
        self.daemon.line_with(what, "").await
    }

    fn address(&self) -> SocketAddr {
        self.daemon.config.listen.unwrap()
    }

    fn made(&self, name: &str, role: Role) -> PathBuf {
        let pki = self.folder.join("pki");
        pki::user(&pki, &name.parse().unwrap(), role).unwrap();
        pki.join(format!("{name}.pem"))
    }

    /// What `symvirt` says to somebody at another machine: its exit status, and its JSON.
    async fn ask(&self, identity: &Path, words: &[&str]) -> (i32, Value) {
        let remote = format!("a={}", self.address());
        let asking = Command::new(env!("CARGO_BIN_EXE_symvirt"))
            .args(["--json", "--remote", &remote, "--identity"])
            .arg(identity)
            .args(words)
            // The usual one is for somebody on its host.
            .env("SYMVIRT_SOCKET", "/nonexistent")
            .kill_on_drop(true)
            .output();
        let Output { status, stdout, .. } =
            tokio::time::timeout(LIMIT, asking).await.unwrap().unwrap();
        let answer = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
        (status.code().unwrap(), answer)
    }
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn each_role_may_what_it_is_for_and_the_log_names_who_asked() {
    if !inside_namespace("each_role_may_what_it_is_for_and_the_log_names_who_asked") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path()).await;
    let viewer = served.made("vera", Role::Viewer);
    let operator = served.made("otto", Role::Operator);
    let admin = served.made("anna", Role::Admin);
    let cancel = ["cancel", "a-00007"];
    let stop = ["vm", "stop", "vm1"];

    let (status, shown) = served.ask(&viewer, &["host", "show"]).await;
    assert_eq!((status, &shown["host"]), (0, &Value::from("a")));
    let (status, refused) = served.ask(&viewer, &cancel).await;
    assert_eq!((status, code(&refused)), (3, "role"));
    let line = served.line_with("audit: refused").await;
    assert!(line.contains("viewer vera"), "{line}");

    let (status, unknown) = served.ask(&operator, &cancel).await;
    assert_eq!((status, code(&unknown)), (3, "unknown-operation"));
    let line = served.line_with("audit: cancel operation").await;
    assert!(line.contains("operator otto"), "{line}");
    let (_, refused) = served.ask(&operator, &stop).await;
    assert_eq!(code(&refused), "role");
    let hint = refused["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--role admin"), "{hint}");

    let (_, unknown) = served.ask(&admin, &stop).await;
    assert_eq!(code(&unknown), "unknown-vm");
    let line = served.line_with("audit: stop VM").await;
    assert!(line.contains("admin anna"), "{line}");
}

#[tokio::test]
async fn hosts_are_no_users_and_users_no_hosts_and_strangers_nobody() {
    if !inside_namespace("hosts_are_no_users_and_users_no_hosts_and_strangers_nobody") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let host = folder.path().join("pki/b.pem");
    let (status, refused) = served.ask(&host, &["host", "show"]).await;
    assert_eq!((status, code(&refused)), (3, "certificates"));

    let cert = served.made("anna", Role::Admin);
    let tls = Tls::load(&TlsFiles {
        ca: cert.with_file_name("ca.pem"),
        key: cert.with_extension("key"),
        cert,
    });
    let connected = peer::connect(&"a".parse().unwrap(), served.address(), &tls.unwrap()).await;
    let mut sender = connected.unwrap();
    let path = "/peer/v1/host";
    let asked = http::exchange::<(), Value>(&mut sender, hyper::Method::GET, path, None).await;
    assert!(
        matches!(&asked, Err(HttpError::Refused(problem)) if problem.code == "certificates"),
        "{asked:?}"
    );

    let other = folder.path().join("other");
    let hosts = [("a".parse().unwrap(), [127, 0, 0, 1].into())];
    pki::init(&other, &hosts).unwrap();
    pki::user(&other, &"mallory".parse().unwrap(), Role::Admin).unwrap();
    // Their own authority, and ours, which does not know them.
    let (status, _) = served
        .ask(&other.join("mallory.pem"), &["host", "show"])
        .await;
    assert_eq!(status, 1);
    std::fs::copy(folder.path().join("pki/ca.pem"), other.join("ca.pem")).unwrap();
    let (status, _) = served
        .ask(&other.join("mallory.pem"), &["host", "show"])
        .await;
    assert_eq!(status, 1);
}

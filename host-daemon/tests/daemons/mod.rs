//! Daemons of a test: in this process, with sockets, certificates and QEMUs that are real.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use symvirt_host::api::error::Problem;
use symvirt_host::api::model::{HostInfo, OperationInfo, Released, VmInfo};
use symvirt_host::config::HostConfig;
use symvirt_host::daemon;
use symvirt_host::http::{self, HttpError};
use symvirt_host::operation::Phase;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Long enough for a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Certificates of one authority for hosts a and b.
pub fn pki(directory: &Path) {
    let here = Ipv4Addr::LOCALHOST.into();
    let hosts = [("a".parse().unwrap(), here), ("b".parse().unwrap(), here)];
    symvirt_host::pki::init(directory, &hosts).unwrap();
}

/// Where the hosts listen: in the test's own namespace, and below the ports that the kernel hands
/// out.
const ADDRESSES: [SocketAddr; 2] = [address(7001), address(7002)];

const fn address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Where the daemons of a test are. They listen, so the test is in a namespace of its own.
pub struct Bed {
    pub folder: PathBuf,
}

impl Bed {
    pub fn new(folder: &Path) -> Self {
        pki(&folder.join("pki"));
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Configuration of host `a` or `b`, with its certificates in `pki`.
    pub fn config(&self, name: &str, pki: &str, memory: &str) -> HostConfig {
        let index = usize::from(name == "b");
        let file = |end: &str| self.folder.join(pki).join(end);
        let peer = if name == "a" { "b" } else { "a" };
        serde_json::from_value(json!({
            "host": name,
            "state_dir": self.folder.join(format!("state-{name}")),
            "bridge": "br0",
            "listen": ADDRESSES[index],
            "memory": memory,
            "tls": {
                "ca": file("ca.pem"),
                "cert": file(&format!("{name}.pem")),
                "key": file(&format!("{name}.key")),
            },
            "peer": [{ "name": peer, "address": ADDRESSES[1 - index] }],
        }))
        .unwrap()
    }

    pub async fn start(&self, name: &str) -> Running {
        Running::start(self.config(name, "pki", "1GiB")).await
    }
}

/// A daemon in a process of its own, whose log is read.
pub struct Logged {
    pub config: HostConfig,
    log: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    /// Ends with it.
    _process: tokio::process::Child,
}

impl Bed {
    /// Starts the program, which then serves.
    pub async fn start_logged(&self, name: &str) -> Logged {
        let config = self.config(name, "pki", "1GiB");
        let mut process = self
            .command(name, &config)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut logged = Logged {
            config,
            log,
            _process: process,
        };
        logged.line_with("serving", "").await;
        logged
    }

    fn command(&self, name: &str, config: &HostConfig) -> tokio::process::Command {
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, toml::to_string(config).unwrap()).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_symvirtd"));
        command.arg("--config").arg(&file);
        command
    }
}

impl Logged {
    /// The next line of the log with `what`. No line before it has `never` in it, unless that is
    /// empty.
    pub async fn line_with(&mut self, what: &str, never: &str) -> String {
        let found = async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("the log ends");
                assert!(never.is_empty() || !line.contains(never), "{line}");
                if line.contains(what) {
                    return line;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap()
    }
}

/// A daemon in a process of its own, which can be killed.
pub struct Killable {
    process: tokio::process::Child,
    pub client: Running,
}

impl Bed {
    /// Starts the program.
    pub async fn start_killable(&self, name: &str) -> Killable {
        let config = self.config(name, "pki", "1GiB");
        let process = self.command(name, &config).spawn().unwrap();
        let socket = config.socket();
        let started = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, started)
            .await
            .expect("the daemon does not start");
        let (stop, _) = oneshot::channel();
        let task = tokio::spawn(async {});
        let client = Running { socket, stop, task };
        Killable { process, client }
    }
}

impl Killable {
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// A daemon that runs in this process.
pub struct Running {
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start(config: HostConfig) -> Self {
        let socket = config.socket();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = daemon::run(config, async move { stopped.await.unwrap_or(()) });
            ended.await.unwrap();
        });
        let started = async {
            while UnixStream::connect(&socket).await.is_err() {
                assert!(!task.is_finished(), "the daemon has ended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, started)
            .await
            .expect("the daemon does not start");
        Self { socket, stop, task }
    }

    /// Ends the daemon; its VMs run on.
    pub async fn end(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(LIMIT, self.task)
            .await
            .unwrap()
            .unwrap();
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<A, Problem> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let mut sender = http::connect(stream).await.unwrap();
        let answer = http::exchange(&mut sender, method, path, body);
        match tokio::time::timeout(LIMIT, answer)
            .await
            .expect("no answer")
        {
            Ok(answer) => Ok(answer),
            Err(HttpError::Refused(problem)) => Err(problem),
            Err(other) => panic!("{path}: {other}"),
        }
    }

    pub async fn start_vm(&self, spec: &Value) -> Result<VmInfo, Problem> {
        self.ask(Method::POST, "/v1/vms", Some(spec)).await
    }

    pub async fn vms(&self) -> Vec<VmInfo> {
        self.ask(Method::GET, "/v1/vms", None).await.unwrap()
    }

    pub async fn begin(&self, request: Value) -> Result<OperationInfo, Problem> {
        self.ask(Method::POST, "/v1/operations", Some(&request))
            .await
    }

    /// The same by an id.
    pub async fn begin_as(&self, id: &str, request: Value) -> Result<OperationInfo, Problem> {
        let path = format!("/v1/operations?request_id={id}");
        self.ask(Method::POST, &path, Some(&request)).await
    }

    pub async fn cancel(&self, operation: &OperationInfo) -> Result<OperationInfo, Problem> {
        self.ask(
            Method::DELETE,
            &format!("/v1/operations/{}", operation.id),
            None,
        )
        .await
    }

    pub async fn operations(&self) -> Vec<OperationInfo> {
        self.ask(Method::GET, "/v1/operations", None).await.unwrap()
    }

    /// The operations that have something reserved there.
    pub async fn reserved(&self) -> Vec<String> {
        let host: HostInfo = self.ask(Method::GET, "/v1/host", None).await.unwrap();
        let reserved = host.reserved.into_iter();
        reserved.map(|it| it.operation.to_string()).collect()
    }

    /// Gives back what an operation has reserved there.
    pub async fn release(
        &self,
        operation: &OperationInfo,
        coordinator_is_gone: bool,
    ) -> Result<Released, Problem> {
        let id = &operation.id;
        let path = format!("/v1/reservations/{id}?coordinator_is_gone={coordinator_is_gone}");
        self.ask(Method::DELETE, &path, None).await
    }

    /// Waits until `enough` accepts what is shown of the operation.
    pub async fn wait(
        &self,
        operation: &OperationInfo,
        enough: impl Fn(&OperationInfo) -> bool,
    ) -> OperationInfo {
        let path = format!("/v1/operations/{}", operation.id);
        let waited = async {
            loop {
                let shown: OperationInfo = self.ask(Method::GET, &path, None).await.unwrap();
                if enough(&shown) {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, waited)
            .await
            .expect("the operation does not get there")
    }

    pub async fn finish(&self, operation: &OperationInfo) -> OperationInfo {
        self.wait(operation, |shown| shown.phase.is_terminal())
            .await
    }

    /// Moves the gang and expects it to be done.
    pub async fn moves_to(&self, to: &str) -> OperationInfo {
        let begun = self.begin(migrate(to)).await.unwrap();
        let ended = self.finish(&begun).await;
        assert_eq!(ended.phase, Phase::Done, "{:?}", ended.reason);
        ended
    }
}

/// The request to move the gang `job`.
pub fn migrate(to: &str) -> Value {
    json!({ "operation": "migrate", "gang": "job", "to": to })
}

//! A daemon that starts on a host with a thousand VMs has their state in less than three round trips
//! to a monitor for each of them. The QEMUs are this process, their monitors are simulated.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemons::Running;
use serde_json::{Value, json};
use symvirt_host::api::model::VmState;
use symvirt_host::vm::process::ProcessIdentity;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const VMS: usize = 1000;
/// From a command to its answer.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// How often each command was given.
type Commands = Arc<Mutex<BTreeMap<String, usize>>>;

async fn monitor(stream: UnixStream, commands: Commands) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let version = json!({ "qemu": { "major": 10, "minor": 0, "micro": 2 }, "package": "" });
    let greeting = json!({ "QMP": { "version": version, "capabilities": ["oob"] } });
    write
        .write_all(format!("{greeting}\r\n").as_bytes())
        .await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        let name = command["execute"].as_str().unwrap_or("?").to_owned();
        let answer = match name.as_str() {
            "query-status" => json!({ "running": true, "status": "running" }),
            _ => json!({}),
        };
        *commands.lock().unwrap().entry(name).or_default() += 1;
        tokio::time::sleep(ROUND_TRIP).await;
        let answer = json!({ "return": answer, "id": command["id"] });
        write.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

/// What an earlier daemon has left of a VM; its QEMU is this process.
fn leave(directory: &Path, n: usize, commands: &Commands) {
    let (name, id) = (format!("vm{n}"), format!("{n:08x}"));
    let directory = directory.join(format!("{name}.{id}"));
    std::fs::create_dir_all(&directory).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let record = json!({
        "id": id,
        "spec": {
            "name": name, "gang": format!("job{}", n / 8), "memory": "1GiB", "kernel": "/vmlinuz",
        },
        "origin": "boot",
        "taps": [],
        "process": ProcessIdentity::of(pid).unwrap(),
        "hca": null,
    });
    std::fs::write(directory.join("record.json"), record.to_string()).unwrap();
    let listener = UnixListener::bind(directory.join("monitor")).unwrap();
    let commands = commands.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(monitor(stream, commands.clone()));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_daemon_knows_a_thousand_vms_in_less_than_three_round_trips_each() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let commands = Commands::default();
    for n in 0..VMS {
        leave(&state.join("vms"), n, &commands);
    }
    let config = json!({ "host": "a", "state_dir": state, "bridge": "br0", "memory": "2TiB" });
    let began = Instant::now();
    let daemon = Running::start(serde_json::from_value(config).unwrap()).await;
    let vms = daemon.vms().await;
    let took = began.elapsed();
    let running = vms.iter().filter(|vm| vm.state == VmState::Running);
    assert_eq!(running.count(), VMS);
    let given = commands.lock().unwrap().clone();
    let ratio = took.as_secs_f64() / (VMS as f64 * ROUND_TRIP.as_secs_f64());
    println!("{VMS} VMs known in {ratio:.3} round trips each; commands given: {given:?}");
    let total: usize = given.values().sum();
    assert!(total < 3 * VMS, "{given:?}");
    assert!(ratio < 3.0, "{ratio} round trips for each VM");
    daemon.end().await;
}

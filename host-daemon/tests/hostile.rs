//! What is read from disks, operators, peers and QEMUs may be anything. Each property holds for what
//! is well-formed but for a few bytes, by seeds that are always the same and by fresh ones.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use symvirt_host::config::VmSpec;
use symvirt_host::operation::effects::HostCall;
use symvirt_host::operation::journal::{Journal, Record, Replayed, replay};
use symvirt_host::operation::state::Event;
use symvirt_host::operation::{Phase, Plan};
use symvirt_qmp::{Client, Error, commands};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const CASES: u32 = 300;

/// A change of a text at a place, given as a part of its length.
#[derive(Clone, Debug)]
enum Change {
    Replace(u16, u8),
    Insert(u16, u8),
    Remove(u16, u8),
    /// A piece of it once more.
    Repeat(u16, u8),
    Cut(u16),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<u16>;
    // Bytes that mean something, more often than others.
    let byte = || {
        prop_oneof![
            any::<u8>(),
            proptest::sample::select(b"\n\r\"{}[],:0 9-=".to_vec())
        ]
    };
    let change = prop_oneof![
        4 => (at(), byte()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        2 => (at(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => (at(), any::<u8>()).prop_map(|(at, n)| Change::Remove(at, n)),
        1 => (at(), any::<u8>()).prop_map(|(at, n)| Change::Repeat(at, n)),
        1 => at().prop_map(Change::Cut),
    ];
    vec(change, 1..4)
}

fn changed(text: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut text = text.to_vec();
    for change in changes {
        let place = |at: u16| usize::from(at) * text.len() / (usize::from(u16::MAX) + 1);
        match *change {
            Change::Replace(at, byte) if !text.is_empty() => {
                let at = place(at);
                text[at] = byte;
            }
            Change::Replace(..) => {}
            Change::Insert(at, byte) => text.insert(place(at), byte),
            Change::Remove(at, n) => {
                let from = place(at);
                let to = text.len().min(from + usize::from(n));
                text.drain(from..to);
            }
            Change::Repeat(at, n) => {
                let from = place(at);
                let to = text.len().min(from + usize::from(n));
                let piece = text[from..to].to_vec();
                text.splice(to..to, piece);
            }
            Change::Cut(at) => text.truncate(place(at)),
        }
    }
    text
}

/// Holds for seeds that are always the same, and for fresh ones.
fn holds(property: impl Fn(Vec<Change>) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    for mut runner in [TestRunner::deterministic(), TestRunner::new(config)] {
        if let Err(failure) = runner.run(&changes(), &property) {
            panic!("{failure}");
        }
    }
}

fn plan() -> Plan {
    let plan = json!({
        "id": "a-00001",
        "request": { "operation": "migrate", "gang": "job", "to": "b" },
        "vms": [{ "vm": "vm1", "source": "a", "source_hca": "hca0", "destination_hca": "hca0" }],
        "ranks": true, "interconnect": "native", "planned_ms": 7,
    });
    serde_json::from_value(plan).unwrap()
}

#[test]
fn a_damaged_journal_tells_what_was_written_or_less_and_never_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = Vec::new();
    for phase in [Phase::Prepare, Phase::LeaveHca, Phase::CheckHolders] {
        let event = Event::Completed;
        records.extend([Record::Intent { phase }, Record::Outcome { phase, event }]);
    }
    let mut journal = Journal::create(folder.path(), &plan(), 7).unwrap();
    for record in &records {
        journal.append(record.clone(), 8).unwrap();
    }
    let path = folder.path().join("a-00001.journal");
    let whole = std::fs::read(&path).unwrap();
    let whole = &whole[..replay(&path).unwrap().unwrap().bytes as usize];
    let mut prefixes = vec![Replayed::start(plan())];
    for record in &records {
        let mut next = prefixes.last().unwrap().clone();
        assert!(next.follow(record.clone()));
        prefixes.push(next);
    }
    let damaged = folder.path().join("damaged.journal");
    holds(|changes| {
        std::fs::write(&damaged, changed(whole, &changes)).unwrap();
        if let Ok(Some(told)) = replay(&damaged) {
            let as_written = prefixes
                .iter()
                .any(|prefix| prefix.plan == told.plan && prefix.state == told.state);
            prop_assert!(as_written, "{told:?}");
        }
        Ok(())
    });
}

#[test]
fn a_vm_file_with_anything_in_it_is_refused_or_is_one_that_makes_sense() {
    const GOOD: &str = "name = 'vm1'\ngang = 'job'\nmemory = '512MiB'\nkernel = 'vmlinuz'\n\
        vcpus = 2\nballoon = true\n[[disk]]\npath = 'd'\nformat = 'raw'\n[[net]]\n\
        mac = '52:54:00:00:00:01'\n[hca]\nmac = '52:54:00:00:01:01'\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vm.toml");
    std::fs::write(&file, GOOD).unwrap();
    VmSpec::load(&file).unwrap();
    holds(|changes| {
        std::fs::write(&file, changed(GOOD.as_bytes(), &changes)).unwrap();
        match VmSpec::load(&file) {
            Ok(spec) => {
                prop_assert_eq!(spec.check(), Ok(()));
                let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\0', '\n', ',']);
                prop_assert!(plain(spec.name.as_str()) && plain(spec.gang.as_str()));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        Ok(())
    });
}

#[test]
fn a_call_of_a_peer_is_refused_or_says_again_what_it_said() {
    let call = json!({
        "call": "start-copy", "vm": "vm1", "to": "b", "uri": "tcp:10.0.0.1:1",
        "downtime_ms": 300, "bandwidth": 0, "streams": "zstd", "throttle": 20,
    });
    let text = call.to_string();
    serde_json::from_str::<HostCall>(&text).unwrap();
    holds(|changes| {
        if let Ok(call) = serde_json::from_slice::<HostCall>(&changed(text.as_bytes(), &changes)) {
            let again = serde_json::to_vec(&call).unwrap();
            prop_assert_eq!(serde_json::from_slice::<HostCall>(&again).unwrap(), call);
        }
        Ok(())
    });
}

/// A monitor that says `noise` before it answers what it is asked.
async fn asked(noise: Vec<u8>) -> Result<bool, Error> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serve = async move {
        let (read, mut write) = theirs.into_split();
        let greeting = json!({ "QMP": {
            "version": { "qemu": { "major": 10, "minor": 0, "micro": 2 }, "package": "" },
            "capabilities": [],
        }});
        write.write_all(format!("{greeting}\n").as_bytes()).await?;
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            let command: serde_json::Value = serde_json::from_str(&line)?;
            let answer = match command["execute"].as_str() {
                Some("query-status") => {
                    write.write_all(&noise).await?;
                    write.write_all(b"\n").await?;
                    json!({ "running": true, "status": "running" })
                }
                _ => json!({}),
            };
            let answer = json!({ "return": answer, "id": command["id"] });
            write.write_all(format!("{answer}\n").as_bytes()).await?;
        }
        std::io::Result::Ok(())
    };
    let ask = async {
        let client = Client::from_stream(ours, "test", Duration::from_secs(60)).await?;
        let status = client.execute(commands::query_status {}).await;
        drop(client);
        status.map(|status| status.running)
    };
    // Who closes first is nobody's concern.
    let (_, answered) = tokio::join!(serve, ask);
    answered
}

#[test]
fn whatever_a_monitor_says_a_command_is_answered_or_fails_and_does_not_wait_for_ever() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let lines = [
        json!({ "event": "STOP", "timestamp": { "seconds": 1, "microseconds": 2 } }).to_string(),
        json!({ "return": { "running": false, "status": "paused" }, "id": 1 }).to_string(),
        json!({ "error": { "class": "GenericError", "desc": "no" }, "id": 1 }).to_string(),
    ];
    for line in lines {
        holds(|changes| {
            let answered = runtime.block_on(asked(changed(line.as_bytes(), &changes)));
            let waited = matches!(answered, Err(Error::Timeout { .. }));
            prop_assert!(!waited, "nobody answers any more");
            Ok(())
        });
    }
}

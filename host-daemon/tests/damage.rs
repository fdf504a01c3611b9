//! A daemon whose disk has damaged a journal.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;
mod namespace;
#[allow(dead_code)] // Shared with another test program.
mod vms;

use std::path::Path;

use daemons::{Bed, Running, migrate};
use namespace::inside_namespace;
use serde_json::{Value, json};
use symvirt_host::api::model::VmState;
use symvirt_host::operation::Phase;
use vms::Host;

/// A VM that needs nothing, of a gang of its own.
fn spec(host: &Host, n: usize) -> Value {
    let mut spec = serde_json::to_value(host.spec()).unwrap();
    spec["name"] = json!(format!("vm{n}"));
    spec["gang"] = json!(format!("job{n}"));
    spec["net"] = json!([]);
    spec["hca"] = Value::Null;
    spec["disk"] = json!([]);
    spec["balloon"] = json!(true);
    spec
}

fn moves(gang: &str) -> Value {
    let mut request = migrate("b");
    request["gang"] = json!(gang);
    request
}

/// Changes one letter of a line; without the end, where the operation was not over.
fn damage(journal: &Path, line: usize, is_over: bool) {
    let text = std::fs::read_to_string(journal).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[line] = lines[line].replace("record", "recorb");
    if !is_over {
        lines.pop();
    }
    std::fs::write(journal, lines.join("\n") + "\n").unwrap();
}

async fn refused(a: &Running, gang: &str, journal: &Path) {
    let problem = a.begin(moves(gang)).await.unwrap_err();
    assert_eq!(problem.code, "damaged-journal", "{problem:?}");
    let file = journal.display().to_string();
    assert!(problem.hint.contains(&file), "{problem:?}");
}

/// The daemon did not start any more, and served nobody.
#[tokio::test]
async fn a_damaged_journal_keeps_operations_from_its_own_gang_only() {
    if !inside_namespace("a_damaged_journal_keeps_operations_from_its_own_gang_only") {
        return;
    }
    let host = Host::new();
    let bed = Bed::new(host.folder.path());
    let a = bed.start("a").await;
    let _b = bed.start("b").await;
    for n in [1, 2] {
        a.start_vm(&spec(&host, n)).await.unwrap();
    }
    let mut slowly = moves("job1");
    slowly["limits"] = json!({ "bandwidth": 65536 });
    let begun = a.begin(slowly).await.unwrap();
    a.wait(&begun, |shown| shown.phase == Phase::Copy).await;
    a.cancel(&begun).await.unwrap();
    assert_eq!(a.finish(&begun).await.phase, Phase::RolledBack);
    a.end().await;
    let journal = bed.folder.join("state-a/operations/a-00001.journal");
    let whole = std::fs::read(&journal).unwrap();

    // In the middle: whose it is can be read.
    damage(&journal, 2, false);
    let a = bed.start("a").await;
    let vms = a.vms().await;
    assert!(
        vms.len() == 2 && vms.iter().all(|vm| vm.state == VmState::Running),
        "{vms:?}"
    );
    refused(&a, "job1", &journal).await;
    let shown = a.operations().await;
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].phase, Phase::NeedsOperator);
    let reason = shown[0].reason.clone().unwrap();
    assert!(
        reason.contains("line 3") && reason.contains("move"),
        "{reason}"
    );
    let other = a.begin(moves("job2")).await.unwrap();
    assert_eq!(other.id.to_string(), "a-00002");
    assert_eq!(a.finish(&other).await.phase, Phase::Done);
    a.end().await;

    // Nothing can be read: it may be anybody's.
    std::fs::write(
        &journal,
        vec![0; 4096]
            .into_iter()
            .chain([b'\n', b'x', b'\n'])
            .collect::<Vec<u8>>(),
    )
    .unwrap();
    let a = bed.start("a").await;
    refused(&a, "job1", &journal).await;
    a.end().await;

    // It was over: what is damaged is history.
    std::fs::write(&journal, &whole).unwrap();
    damage(&journal, 2, true);
    let a = bed.start("a").await;
    let begun = a.begin(moves("job1")).await.unwrap();
    assert_eq!(begun.id.to_string(), "a-00003");
    assert_eq!(a.finish(&begun).await.phase, Phase::Done);
    a.end().await;
}

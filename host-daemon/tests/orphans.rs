//! Operations whose coordinators will never be back, and what they have reserved elsewhere.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;
mod namespace;
#[allow(dead_code)] // Shared with another test program.
mod vms;

use std::io;
use std::sync::Arc;

use daemons::{Bed, migrate};
use futures_util::future::BoxFuture;
use namespace::inside_namespace;
use serde_json::{Value, json};
use symvirt_host::api::model::VmState;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::guest::{Connector, Gangs, Stream};
use symvirt_host::host::LocalHost;
use symvirt_host::operation::effects::{
    Crossing, Host as _, HostCall, HostError, HostReply, Streams,
};
use symvirt_host::operation::{Denial, OperationId, Phase};
use vms::Host;

/// A VM of the gang `job` that needs nothing.
fn spec(host: &Host) -> Value {
    let mut spec = serde_json::to_value(host.spec()).unwrap();
    spec["hca"] = Value::Null;
    spec["disk"] = json!([]);
    spec["balloon"] = json!(true);
    spec
}

fn ready() -> (Host, Bed) {
    let host = Host::new();
    let bed = Bed::new(host.folder.path());
    (host, bed)
}

#[tokio::test]
async fn what_a_lost_coordinator_has_reserved_is_given_back_on_an_operators_word() {
    if !inside_namespace("what_a_lost_coordinator_has_reserved_is_given_back_on_an_operators_word")
    {
        return;
    }
    let (host, bed) = ready();
    let a = bed.start_killable("a").await;
    a.client.start_vm(&spec(&host)).await.unwrap();
    let b = bed.start("b").await;
    let mut slowly = migrate("b");
    slowly["limits"] = json!({ "bandwidth": 65536 });
    let begun = a.client.begin(slowly).await.unwrap();
    a.client.wait(&begun, |it| it.phase == Phase::Copy).await;
    assert_eq!(b.reserved().await, [begun.id.to_string()]);
    let code = async |gone| b.release(&begun, gone).await.unwrap_err().code;
    // Nobody's word counts against the coordinator's.
    assert_eq!(code(true).await, "not-orphaned");
    a.kill().await;
    assert_eq!(code(false).await, "not-orphaned");
    assert_eq!(b.vms().await.len(), 1);
    let released = b.release(&begun, true).await.unwrap();
    assert_eq!((released.ended.len(), released.kept.len()), (1, 0));
    assert!(b.vms().await.is_empty() && b.reserved().await.is_empty());
    assert_eq!(code(true).await, "unknown-operation");

    // If it comes back all the same, its VM was never elsewhere.
    let a = bed.start_killable("a").await;
    let ended = a.client.finish(&begun).await;
    assert_eq!(ended.phase, Phase::RolledBack, "{:?}", ended.reason);
    let vms = a.client.vms().await;
    assert!(
        vms.len() == 1 && vms[0].state == VmState::Running,
        "{vms:?}"
    );
    a.kill().await;
}

struct Nowhere;

impl Connector for Nowhere {
    fn connect(&self, _: HostName, _: VmName) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

fn local(bed: &Bed, name: &str) -> Arc<LocalHost> {
    let config = bed.config(name, "pki", "1GiB");
    std::fs::create_dir_all(&config.state_dir).unwrap();
    let gangs = Arc::new(Gangs::new(Arc::new(Nowhere)));
    Arc::new(LocalHost::new(Arc::new(config), gangs).unwrap())
}

/// The coordinator dies between the crossing and the word to run: the only copy stands at the
/// destination.
#[tokio::test]
async fn a_vm_that_has_arrived_whole_is_never_released() {
    if !inside_namespace("a_vm_that_has_arrived_whole_is_never_released") {
        return;
    }
    let (host, bed) = ready();
    let (a, b) = (local(&bed, "a"), local(&bed, "b"));
    let spec: symvirt_host::config::VmSpec = serde_json::from_value(spec(&host)).unwrap();
    let vm = spec.name.clone();
    a.start(spec.clone()).await.unwrap();
    let operation: OperationId = "a-7".parse().unwrap();
    let vms = vec![spec];
    let admit = HostCall::Admit {
        operation: operation.clone(),
        vms,
    };
    b.call(admit).await.unwrap();
    let prepare = HostCall::Prepare {
        operation: operation.clone(),
        vm: vm.clone(),
        streams: Streams::Plain,
    };
    let HostReply::Waiting { uri } = b.call(prepare).await.unwrap() else {
        panic!("nobody waits");
    };
    let copy = HostCall::StartCopy {
        vm: vm.clone(),
        to: "b".parse().unwrap(),
        uri,
        bandwidth: 0,
        streams: Streams::Plain,
        throttle: 0,
    };
    a.call(copy).await.unwrap();
    a.call(HostCall::Stop {
        vm: vm.clone(),
        postcopy: None,
    })
    .await
    .unwrap();
    let ready = async {
        loop {
            match a.call(HostCall::CopyStatus { vm: vm.clone() }).await {
                Ok(HostReply::Copy { status }) if status.state == "pre-switchover" => return,
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(daemons::LIMIT, ready).await.unwrap();
    let cross = HostCall::Cross {
        vm: vm.clone(),
        limit_ms: 30_000,
    };
    let crossed = a.call(cross).await.unwrap();
    assert!(matches!(
        crossed,
        HostReply::Crossed {
            crossing: Crossing::Completed { .. }
        }
    ));

    let refused = b.give_back(&operation).await.unwrap_err();
    let whole = matches!(refused, HostError::Denied(Denial::MayBeWhole { .. }));
    assert!(whole, "{refused}");
    assert_eq!(b.reserved().len(), 1);
    b.resume_arrived(&vm).await.unwrap();
    let released = b.give_back(&operation).await.unwrap();
    assert_eq!((released.ended, released.kept), (vec![], vec![vm.clone()]));
    assert_eq!(b.list().await[0].state, VmState::Running);
    assert!(b.reserved().is_empty());
    b.stop(&vm).await.unwrap();
    a.call(HostCall::Retire { vm }).await.unwrap();
}

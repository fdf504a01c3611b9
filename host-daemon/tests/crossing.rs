//! Two daemons with real sockets, certificates and QEMUs, in a namespace of their own.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod daemons;
mod namespace;
#[allow(dead_code)] // Shared with another test program.
mod vms;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemons::{Bed, Running, migrate};
use namespace::inside_namespace;
use serde_json::{Value, json};
use symvirt_host::api::model::{OperationInfo, VmInfo, VmState};
use symvirt_host::operation::report::VmReport;
use symvirt_host::operation::{Phase, Report};
use vms::Host;

/// A VM of the gang `job` that needs no HCA.
fn spec(host: &Host, name: &str, mac: &str) -> Value {
    let mut spec = serde_json::to_value(host.spec()).unwrap();
    spec["name"] = json!(name);
    spec["net"] = json!([{ "mac": mac }]);
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

async fn with_gang(host: &Host, bed: &Bed) -> Running {
    let a = bed.start("a").await;
    a.start_vm(&spec(host, "vm1", "52:54:00:00:00:01"))
        .await
        .unwrap();
    a.start_vm(&spec(host, "vm2", "52:54:00:00:00:02"))
        .await
        .unwrap();
    a
}

fn running(vms: &[VmInfo]) -> Vec<&str> {
    assert!(vms.iter().all(|vm| vm.state == VmState::Running), "{vms:?}");
    vms.iter().map(|vm| vm.name.as_str()).collect()
}

#[tokio::test]
async fn a_gang_crosses_and_comes_back_and_nothing_stays_behind() {
    if !inside_namespace("a_gang_crosses_and_comes_back_and_nothing_stays_behind") {
        return;
    }
    let (host, bed) = ready();
    let a = with_gang(&host, &bed).await;
    let b = bed.start("b").await;
    copied(&a.moves_to("b").await);
    assert!(a.vms().await.is_empty());
    assert_eq!(running(&b.vms().await), ["vm1", "vm2"]);
    b.moves_to("a").await;
    assert!(b.vms().await.is_empty());
    assert_eq!(running(&a.vms().await), ["vm1", "vm2"]);
    assert_eq!(vms::taps().len(), 2);
}

#[tokio::test]
async fn a_gang_that_may_cross_before_its_memory_does_so_if_it_does_not_converge() {
    if !inside_namespace("a_gang_that_may_cross_before_its_memory_does_so_if_it_does_not_converge")
    {
        return;
    }
    let (host, bed) = ready();
    let a = with_gang(&host, &bed).await;
    let b = bed.start("b").await;
    let mut order = migrate("b");
    let early = json!({ "bandwidth": 16_384, "converge_s": 0, "if_not_converging": "postcopy" });
    order["limits"] = early.clone();
    order["limits"]["compress"] = json!("zstd");
    assert_eq!(a.begin(order.clone()).await.unwrap_err().code, "bad-bounds");

    order["limits"] = early;
    let begun = a.begin(order).await.unwrap();
    a.wait(&begun, |shown| shown.phase == Phase::Postcopy).await;
    assert_eq!(running(&b.vms().await), ["vm1", "vm2"]);
    let left = a.vms().await;
    let serves = |vm: &VmInfo| vm.state == VmState::Migrated;
    assert!(left.len() == 2 && left.iter().all(serves), "{left:?}");
    assert_eq!(a.cancel(&begun).await.unwrap_err().code, "cannot-cancel");
    let report = copied(&a.finish(&begun).await);
    let notes = report.notes.join(", ");
    assert!(
        notes.contains("before the rest of their memory"),
        "{report:?}"
    );
    assert!(a.vms().await.is_empty());

    let mut order = migrate("a");
    order["limits"] = json!({ "if_not_converging": "postcopy" });
    let begun = b.begin(order).await.unwrap();
    let report = copied(&b.finish(&begun).await);
    let notes = report.notes.join(", ");
    assert!(
        !notes.contains("before the rest"),
        "it did converge: {notes}"
    );
    assert_eq!(running(&a.vms().await), ["vm1", "vm2"]);
}

/// The report of an operation that is done, and has said what it copied.
fn copied(ended: &OperationInfo) -> Report {
    assert_eq!(ended.phase, Phase::Done, "{ended:?}");
    let report = ended.report.clone().unwrap();
    let counted = |vm: &VmReport| vm.bytes > 0 && vm.downtime_ms.is_some();
    assert!(report.vms.iter().all(counted), "{report:?}");
    report
}

#[tokio::test]
async fn a_cancelled_migration_leaves_the_gang_running_at_its_source() {
    if !inside_namespace("a_cancelled_migration_leaves_the_gang_running_at_its_source") {
        return;
    }
    let (host, bed) = ready();
    let a = with_gang(&host, &bed).await;
    let b = bed.start("b").await;
    let mut slowly = migrate("b");
    slowly["limits"] = json!({ "bandwidth": 65536 });
    let begun = a.begin(slowly).await.unwrap();
    a.wait(&begun, |shown| shown.phase == Phase::Copy).await;
    assert_eq!(a.begin(migrate("b")).await.unwrap_err().code, "busy");
    a.cancel(&begun).await.unwrap();
    let ended = a.finish(&begun).await;
    assert_eq!(ended.phase, Phase::RolledBack);
    assert_eq!(running(&a.vms().await), ["vm1", "vm2"]);
    assert!(b.vms().await.is_empty());
    assert_eq!(a.cancel(&begun).await.unwrap_err().code, "cannot-cancel");
    // What was reserved and set for the first time does not stand in the way of the second.
    a.moves_to("b").await;
}

#[tokio::test]
async fn vms_outlive_their_daemon_and_a_new_one_takes_them_up() {
    if !inside_namespace("vms_outlive_their_daemon_and_a_new_one_takes_them_up") {
        return;
    }
    let (host, bed) = ready();
    let a = with_gang(&host, &bed).await;
    let before: Vec<_> = a.vms().await.iter().map(|vm| vm.pid).collect();
    a.end().await;
    let a = bed.start("a").await;
    let after = a.vms().await;
    assert_eq!(running(&after), ["vm1", "vm2"]);
    assert_eq!(after.iter().map(|vm| vm.pid).collect::<Vec<_>>(), before);
    let _b = bed.start("b").await;
    a.moves_to("b").await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_by_name_and_nothing_changes() {
    if !inside_namespace("what_cannot_work_is_refused_by_name_and_nothing_changes") {
        return;
    }
    let (host, bed) = ready();
    let a = with_gang(&host, &bed).await;
    let refused = async |request: Value| a.begin(request).await.unwrap_err().code;
    let mut unknown = migrate("b");
    unknown["gang"] = json!("nobody");
    assert_eq!(refused(unknown).await, "unknown-gang");
    assert_eq!(refused(migrate("c")).await, "unknown-host");
    assert_eq!(refused(migrate("a")).await, "already-there");
    assert_eq!(refused(migrate("b")).await, "unreachable");
    let twice = a.start_vm(&spec(&host, "vm1", "52:54:00:00:00:03")).await;
    assert_eq!(twice.unwrap_err().code, "vm-exists");
    let switch = json!({ "operation": "switch", "gang": "job", "to": "native" });
    assert_eq!(refused(switch).await, "no-agent");

    let full = Running::start(bed.config("b", "pki", "40MiB")).await;
    assert_eq!(refused(migrate("b")).await, "destination-full");
    full.end().await;
    let mut few = bed.config("b", "pki", "1GiB");
    few.vcpus = Some(1);
    let few = Running::start(few).await;
    let denied = a.begin(migrate("b")).await.unwrap_err();
    assert_eq!(denied.code, "destination-full");
    assert!(
        denied.message.contains("has 1 virtual CPUs"),
        "{}",
        denied.message
    );
    few.end().await;

    daemons::pki(&bed.folder.join("other-pki"));
    let stranger = Running::start(bed.config("b", "other-pki", "1GiB")).await;
    assert_eq!(refused(migrate("b")).await, "certificates");
    stranger.end().await;
    assert_eq!(running(&a.vms().await), ["vm1", "vm2"]);

    // After all these refusals the way is free.
    let _b = bed.start("b").await;
    a.moves_to("b").await;
}

#[tokio::test]
async fn operations_of_two_hosts_that_meet_on_a_gang_are_refused() {
    if !inside_namespace("operations_of_two_hosts_that_meet_on_a_gang_are_refused") {
        return;
    }
    let (host, bed) = ready();
    // A gang that was left split.
    let a = bed.start("a").await;
    let b = bed.start("b").await;
    for (daemon, name, mac) in [
        (&a, "vm1", "52:54:00:00:00:01"),
        (&b, "vm2", "52:54:00:00:00:02"),
    ] {
        daemon.start_vm(&spec(&host, name, mac)).await.unwrap();
    }
    let mut slowly = migrate("b");
    slowly["limits"] = json!({ "bandwidth": 65536 });
    let begun = a.begin(slowly).await.unwrap();
    a.wait(&begun, |shown| shown.phase == Phase::Copy).await;
    let refused = b.begin(migrate("a")).await.unwrap_err();
    assert_eq!(refused.code, "busy");
    assert!(refused.message.contains("a-00001"), "{}", refused.message);
    a.cancel(&begun).await.unwrap();
    assert_eq!(a.finish(&begun).await.phase, Phase::RolledBack);
    // Nobody is in the way any more, and the gang comes together.
    b.moves_to("a").await;
    assert_eq!(running(&a.vms().await), ["vm1", "vm2"]);
}

#[tokio::test]
async fn an_operation_whose_daemon_was_killed_goes_on_with_the_next() {
    if !inside_namespace("an_operation_whose_daemon_was_killed_goes_on_with_the_next") {
        return;
    }
    let (host, bed) = ready();
    let a = bed.start_killable("a").await;
    for (name, mac) in [("vm1", "52:54:00:00:00:01"), ("vm2", "52:54:00:00:00:02")] {
        let started = a.client.start_vm(&spec(&host, name, mac)).await;
        started.unwrap();
    }
    let b = bed.start("b").await;
    let copying = |shown: &symvirt_host::api::model::OperationInfo| shown.phase == Phase::Copy;
    let mut slowly = migrate("b");
    slowly["limits"] = json!({ "bandwidth": 65536 });
    let begun = a.client.begin(slowly).await.unwrap();
    a.client.wait(&begun, copying).await;
    a.kill().await;

    // It can still be cancelled, …
    let a = bed.start_killable("a").await;
    a.client.cancel(&begun).await.unwrap();
    let ended = a.client.finish(&begun).await;
    assert_eq!(ended.phase, Phase::RolledBack, "{:?}", ended.reason);
    assert_eq!(running(&a.client.vms().await), ["vm1", "vm2"]);
    assert!(b.vms().await.is_empty());

    // … and left alone it ends as it was asked to.
    let mut steadily = migrate("b");
    steadily["limits"] = json!({ "bandwidth": 4 << 20 });
    let begun = a.client.begin(steadily).await.unwrap();
    a.client.wait(&begun, copying).await;
    a.kill().await;
    let a = bed.start_killable("a").await;
    let ended = a.client.finish(&begun).await;
    assert_eq!(ended.phase, Phase::Done, "{:?}", ended.reason);
    assert_eq!(running(&b.vms().await), ["vm1", "vm2"]);
    assert!(a.client.vms().await.is_empty());
    a.kill().await;
}

#[tokio::test]
async fn a_copy_whose_destination_is_killed_goes_to_another_and_the_report_says_why() {
    if !inside_namespace(
        "a_copy_whose_destination_is_killed_goes_to_another_and_the_report_says_why",
    ) {
        return;
    }
    let (host, bed) = ready();
    let a = with_gang(&host, &bed).await;
    let b = bed.start("b").await;
    let mut steadily = migrate("b");
    steadily["limits"] = json!({ "bandwidth": 256 << 10 });
    let begun = a.begin(steadily).await.unwrap();
    let copying = |shown: &symvirt_host::api::model::OperationInfo| {
        shown.phase == Phase::Copy && shown.progress.vms.len() == 2
    };
    a.wait(&begun, copying).await;
    // Another moment of the copy each time.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let moment = Duration::from_millis(u64::from(now.subsec_millis() % 200));
    eprintln!("the destination is killed {moment:?} later");
    tokio::time::sleep(moment).await;
    let waiting = b.vms().await;
    let victim = waiting.iter().find(|vm| vm.name.as_str() == "vm2").unwrap();
    assert_eq!(victim.state, VmState::Incoming);
    let pid = nix::unistd::Pid::from_raw(victim.pid.unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let ended = a.finish(&begun).await;
    assert_eq!(ended.phase, Phase::Done, "{:?}", ended.reason);
    let notes = ended.report.unwrap().notes;
    let told = |note: &String| note.contains("the copy of vm2") && note.contains("QEMU has ended");
    assert!(notes.iter().any(told), "{notes:?}");
    assert_eq!(running(&b.vms().await), ["vm1", "vm2"]);
    assert!(a.vms().await.is_empty());
}

#[tokio::test]
async fn a_request_that_is_asked_again_is_the_same_also_for_the_next_daemon() {
    if !inside_namespace("a_request_that_is_asked_again_is_the_same_also_for_the_next_daemon") {
        return;
    }
    let (host, bed) = ready();
    let a = bed.start_killable("a").await;
    let vm = spec(&host, "vm1", "52:54:00:00:00:01");
    a.client.start_vm(&vm).await.unwrap();
    let _b = bed.start("b").await;
    let mut slowly = migrate("b");
    slowly["limits"] = json!({ "bandwidth": 65536 });
    let (one, other) = tokio::join!(
        a.client.begin_as("x-1", slowly.clone()),
        a.client.begin_as("x-1", slowly.clone())
    );
    let begun = one.unwrap();
    assert_eq!(other.unwrap().id, begun.id);
    a.kill().await;

    let a = bed.start_killable("a").await;
    let again = a.client.begin_as("x-1", slowly.clone()).await.unwrap();
    assert_eq!(again.id, begun.id);
    assert_eq!(a.client.operations().await.len(), 1);
    let reused = a.client.begin_as("x-1", migrate("b")).await.unwrap_err();
    assert_eq!(reused.code, "request-id-reused");
    // Who asks for something else is told that something is under way.
    let busy = a.client.begin_as("x-2", slowly.clone()).await.unwrap_err();
    assert_eq!(busy.code, "busy");
    a.client.cancel(&begun).await.unwrap();
    assert_eq!(a.client.finish(&begun).await.phase, Phase::RolledBack);
    // It is shown also when it is over.
    let over = a.client.begin_as("x-1", slowly).await.unwrap();
    assert_eq!((over.id, over.phase), (begun.id, Phase::RolledBack));
    a.kill().await;
}

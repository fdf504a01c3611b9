//! Hot-plugging in a real QEMU. There is no guest, so nothing answers an unplug request of a PCI
//! device until a reset takes it for granted: the perfect guest that does not let go.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::time::Duration;

use qemu::{LIMIT, Machine, folder};
use serde_json::{Value, json};
use symvirt_qmp::hotplug::{
    DeviceId, DeviceSet, PlugError, Properties, UnplugError, Unplugged, is_attached, plug, remove,
    unplug,
};
use symvirt_qmp::{commands, migration};

const NEVER: Duration = Duration::from_millis(300);

fn properties(list: &[Value]) -> Vec<Properties> {
    list.iter()
        .map(|value| value.as_object().unwrap().clone())
        .collect()
}

/// A device that leaves without asking the guest.
fn tablet(id: &str) -> Properties {
    let device = json!({"driver": "usb-tablet", "id": id, "bus": "usb.0"});
    device.as_object().unwrap().clone()
}

/// The two-function stand-in for an HCA: the second function forbids migration.
fn hca() -> DeviceSet {
    DeviceSet {
        objects: properties(&[
            json!({"qom-type": "memory-backend-ram", "id": "hm", "size": 1 << 20, "share": true}),
        ]),
        netdevs: properties(&[json!({"type": "hubport", "id": "ni", "hubid": 0})]),
        devices: properties(&[
            json!({"driver": "ivshmem-plain", "id": "hcablk", "bus": "rp0", "addr": "0.1",
                "memdev": "hm"}),
            json!({"driver": "e1000e", "id": "hca", "bus": "rp0", "addr": "0.0",
                "multifunction": true, "netdev": "ni", "mac": "52:54:00:00:00:01"}),
        ]),
    }
}

#[tokio::test]
async fn an_unplug_ends_with_the_event_of_exactly_that_device() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    for id in ["tablet", "tablet2"] {
        let device = json!({"driver": "usb-tablet", "id": id, "bus": "usb.0"});
        let set = DeviceSet {
            devices: properties(&[device]),
            ..DeviceSet::default()
        };
        plug(&machine.qmp, &set, LIMIT).await.unwrap();
    }
    let tablet = DeviceId::from("tablet");
    let expected = [tablet.clone()];
    let unplugged = unplug(&machine.qmp, &tablet, &expected, LIMIT)
        .await
        .unwrap();
    assert!(matches!(unplugged, Unplugged::After(_)));
    assert!(!is_attached(&machine.qmp, &tablet).await.unwrap());
    assert!(is_attached(&machine.qmp, &"tablet2".into()).await.unwrap());
    let again = unplug(&machine.qmp, &tablet, &expected, LIMIT)
        .await
        .unwrap();
    assert_eq!(again, Unplugged::WasAbsent);
}

#[tokio::test]
async fn a_guest_that_does_not_let_go_is_reported_and_can_be_waited_for_again() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    let (set, primary) = (hca(), DeviceId::from("hca"));
    plug(&machine.qmp, &set, LIMIT).await.unwrap();

    let error = remove(&machine.qmp, &set, &primary, NEVER)
        .await
        .unwrap_err();
    let UnplugError::StillAttached { devices, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        devices.len(),
        2,
        "both functions are still there: {devices:?}"
    );
    assert!(is_attached(&machine.qmp, &primary).await.unwrap());

    // The second request finds the first pending; the reset then completes it.
    let reset = async {
        let mut events = machine.qmp.subscribe();
        machine
            .qmp
            .execute(commands::system_reset {})
            .await
            .unwrap();
        events
            .wait("DEVICE_DELETED", LIMIT, |event| {
                (event.text("device") == Some("hcablk")).then_some(())
            })
            .await
            .unwrap();
    };
    let (removed, ()) = tokio::join!(remove(&machine.qmp, &set, &primary, LIMIT), reset);
    assert!(matches!(removed.unwrap(), Unplugged::After(_)));

    // Nothing is left, so the same can be plugged again.
    plug(&machine.qmp, &set, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_plugged_hca_forbids_migration_with_a_reason() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    plug(&machine.qmp, &hca(), LIMIT).await.unwrap();
    let to = migration::Endpoint::Unix(folder.path().join("nobody"));
    let settings = migration::Settings::live();
    let started = migration::Outgoing::start(&machine.qmp, &to, &settings, LIMIT).await;
    let Err(migration::MigrateError::Blocked { reasons }) = started else {
        panic!("{started:?}")
    };
    assert!(reasons[0].contains("ivshmem"), "{reasons:?}");
}

#[tokio::test]
async fn a_plug_that_fails_half_way_leaves_nothing() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    let mut broken = hca();
    broken.devices[0] = tablet("tablet");
    broken.devices[1].insert("mac".into(), "not a mac".into());
    let error = plug(&machine.qmp, &broken, LIMIT).await.unwrap_err();
    let PlugError::Undone { command, id, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*command, id.as_str()), ("device_add", "hca"));
    // The same ids are free.
    plug(&machine.qmp, &hca(), LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_failed_plug_names_what_the_guest_keeps_and_remove_completes_it() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    let mut broken = hca();
    broken.devices[1].insert("mac".into(), "not a mac".into());
    let error = plug(&machine.qmp, &broken, NEVER).await.unwrap_err();
    let PlugError::Left { id, left, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (id.as_str(), left.as_slice()),
        ("hca", &["hcablk".into(), "hm".into()][..])
    );

    let primary = DeviceId::from("hca");
    let (removed, reset) = tokio::join!(
        remove(&machine.qmp, &broken, &primary, LIMIT),
        machine.qmp.execute(commands::system_reset {})
    );
    reset.unwrap();
    removed.unwrap();
    plug(&machine.qmp, &hca(), LIMIT).await.unwrap();
}

/// QEMU frees the memory of an HCA later than it says that the HCA is gone.
#[tokio::test]
async fn a_machine_whose_hca_has_just_gone_can_be_migrated() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    let settings = migration::Settings::live();
    let to = migration::Endpoint::Unix(folder.path().join("stream"));
    let incoming = migration::Incoming::listen(&target.qmp, &to, &settings).await;
    let (set, primary) = (hca(), DeviceId::from("hca"));
    plug(&source.qmp, &set, LIMIT).await.unwrap();
    // There is no guest to let go of it; a reset does.
    let held = remove(&source.qmp, &set, &primary, NEVER).await;
    held.unwrap_err();
    let reset = source.qmp.execute(commands::system_reset {}).await;
    reset.unwrap();
    remove(&source.qmp, &set, &primary, LIMIT).await.unwrap();
    let outgoing = migration::Outgoing::start(&source.qmp, &to, &settings, NEVER).await;
    outgoing.unwrap().finish(LIMIT).await.unwrap();
    incoming.unwrap().finish(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_part_without_id_is_refused_before_anything_is_added() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    let mut broken = hca();
    broken.devices[1].remove("id");
    let error = plug(&machine.qmp, &broken, LIMIT).await.unwrap_err();
    assert!(matches!(error, PlugError::NoId { .. }), "{error}");
    plug(&machine.qmp, &hca(), LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_dies_ends_the_wait_for_its_device() {
    let folder = folder();
    let mut machine = Machine::start(&folder, "vm", &[]).await;
    plug(&machine.qmp, &hca(), LIMIT).await.unwrap();
    let (qmp, primary) = (machine.qmp.clone(), DeviceId::from("hca"));
    let expected = [primary.clone()];
    let kill = async {
        let mut events = machine.qmp.subscribe();
        machine.qmp.execute(commands::cont {}).await.unwrap();
        events
            .wait("RESUME", LIMIT, |event| {
                (event.name == "RESUME").then_some(())
            })
            .await
            .unwrap();
        machine.kill().await;
    };
    let (unplugged, ()) = tokio::join!(unplug(&qmp, &primary, &expected, LIMIT), kill);
    let UnplugError::Command { source, .. } = unplugged.unwrap_err() else {
        panic!()
    };
    assert!(source.is_closed(), "{source}");
}

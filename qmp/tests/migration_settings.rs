//! What a migration is told before it begins: parameters, channels, compression.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::time::Duration;

use qemu::{Content, LIMIT, Machine, OFTEN, folder, migrating, stream};
use serde_json::{Map, Value, json};
use symvirt_qmp::migration::{Incoming, Outgoing, Settings, Status, configure};

async fn parameters(machine: &Machine) -> Map<String, Value> {
    let listed = machine
        .qmp
        .execute_raw("query-migrate-parameters", Value::Null)
        .await
        .unwrap();
    listed.as_object().unwrap().clone()
}

async fn capabilities(machine: &Machine) -> Vec<String> {
    let listed = machine
        .qmp
        .execute_raw("query-migrate-capabilities", Value::Null)
        .await
        .unwrap();
    let on = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["state"] == json!(true));
    on.map(|entry| entry["capability"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn leftovers_of_an_earlier_migration_do_not_reach_the_next() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let fresh = parameters(&source).await;
    let mut odd = Settings {
        pause_before_switchover: true,
        auto_converge: true,
        multifd_channels: Some(7),
        downtime_limit: Some(Duration::from_millis(1234)),
        ..Settings::live()
    };
    odd.parameters
        .insert("multifd-compression".into(), "zlib".into());
    odd.capabilities.insert("xbzrle".into(), false);
    configure(&source.qmp, &odd).await.unwrap();
    let changed = parameters(&source).await;
    assert_eq!(changed["downtime-limit"], 1234);
    assert_eq!(changed["multifd-channels"], 7);
    configure(&source.qmp, &Settings::default()).await.unwrap();
    assert_eq!(parameters(&source).await, fresh);
    assert_eq!(capabilities(&source).await, ["events"]);

    configure(&source.qmp, &odd).await.unwrap();
    let target = Machine::waiting(&folder, "target", &[]).await;
    let endpoint = stream(&folder);
    let plain = Settings::live();
    let mut incoming = Incoming::listen(&target.qmp, &endpoint, &plain)
        .await
        .unwrap();
    let outgoing = Outgoing::start(&source.qmp, &endpoint, &plain, OFTEN)
        .await
        .unwrap();
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
}

#[tokio::test]
async fn every_parameter_of_a_fresh_qemu_has_a_default_to_go_back_to() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    let fresh = parameters(&machine).await;
    let others: Map<String, Value> = fresh
        .iter()
        .map(|(name, value)| {
            let other = match value {
                Value::Number(_) => json!(3),
                _ => value.clone(),
            };
            (name.clone(), other)
        })
        .collect();
    // Each alone: QEMU accepts 3 for most, and has ranges for a few.
    for (name, value) in others {
        let mut one = Map::new();
        one.insert(name, value);
        machine
            .qmp
            .execute_raw("migrate-set-parameters", Value::Object(one))
            .await
            .ok();
    }
    assert_ne!(parameters(&machine).await, fresh);
    configure(&machine.qmp, &Settings::default()).await.unwrap();
    assert_eq!(parameters(&machine).await, fresh);
}

#[tokio::test]
async fn several_channels_work_on_both_sides() {
    let folder = folder();
    let content = Content::new(&folder, 4 << 20);
    let load = content.arguments();
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    let source = Machine::start(&folder, "source", &load).await;
    let target = Machine::waiting(&folder, "target", &load).await;
    let settings = Settings {
        multifd_channels: Some(4),
        ..Settings::live()
    };
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &settings, &settings).await;
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    content.assert_in(&target, folder.path()).await;
}

/// Everything that a crossing of a gang asks for at once.
#[tokio::test]
async fn compressed_channels_await_the_stop_and_pause_before_the_switchover() {
    let folder = folder();
    let content = Content::dull(&folder, 16 << 20);
    let load = content.arguments();
    let balloon = [
        "-object",
        "iothread,id=thread",
        "-device",
        "virtio-balloon-pci,free-page-hint=on,free-page-reporting=on,iothread=thread",
    ];
    let load: Vec<&str> = load.iter().map(String::as_str).chain(balloon).collect();
    let source = Machine::start(&folder, "source", &load).await;
    let target = Machine::waiting(&folder, "target", &load).await;
    source.run().await;
    let there = Settings {
        pause_before_switchover: true,
        multifd_channels: Some(2),
        compress: true,
        ..Settings::live()
    };
    let mut here = Settings {
        await_stop: true,
        auto_converge: true,
        ..there.clone()
    };
    here.parameters.insert("max-cpu-throttle".into(), 60.into());
    let (mut incoming, outgoing) = migrating(&folder, [&source, &target], &here, &there).await;
    let iterating = outgoing.wait_until(LIMIT, |progress| progress.passes > 5);
    let iterating = iterating.await.unwrap();
    assert_eq!(iterating.status, Status::active);
    outgoing.stop_machine().await.unwrap();
    outgoing.wait_for_switchover(LIMIT).await.unwrap();
    outgoing.continue_switchover().await.unwrap();
    let done = outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    content.assert_in(&target, folder.path()).await;
    assert!(done.ratio > 2.0, "{done:?}");
}

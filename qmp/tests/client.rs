//! The client and a real QEMU: events, refusals, reconnection, end.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::time::Duration;

use qemu::{LIMIT, Machine, folder};
use serde_json::Value;
use symvirt_qmp::{Client, Error, ErrorClass, EventError, commands};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn whoever_subscribes_before_acting_sees_what_follows() {
    let folder = folder();
    let machine = Machine::start(&folder, "vm", &[]).await;
    let (mut one, mut other) = (machine.qmp.subscribe(), machine.qmp.subscribe());
    machine.run().await;
    machine.qmp.execute(commands::stop {}).await.unwrap();
    for events in [&mut one, &mut other] {
        let resume = events.next().await.unwrap();
        assert!(resume.decode::<commands::RESUME>().is_some(), "{resume:?}");
        assert!(resume.timestamp.is_some());
        let stop = events.next().await.unwrap();
        assert!(stop.decode::<commands::STOP>().is_some(), "{stop:?}");
    }
}

#[tokio::test]
async fn the_monitor_serves_one_client_and_then_the_next() {
    let folder = folder();
    let Machine { qmp, monitor, .. } = &machine(&folder).await;
    let second = Client::connect(monitor, SHORT).await;
    assert!(
        matches!(second, Err(Error::NoGreeting { .. })),
        "{second:?}"
    );
    assert!(qmp.version().major >= 7, "{}", qmp.version());
}

async fn machine(folder: &tempfile::TempDir) -> Machine {
    Machine::start(folder, "vm", &[]).await
}

#[tokio::test]
async fn a_client_can_connect_after_the_last_has_gone() {
    let folder = folder();
    let machine = machine(&folder).await;
    let monitor = machine.monitor.clone();
    let _child = machine.disconnect();
    for _ in 0..5 {
        let next = Client::connect(&monitor, LIMIT).await.unwrap();
        next.execute(commands::query_status {}).await.unwrap();
    }
}

#[tokio::test]
async fn a_command_qemu_does_not_know_is_refused_and_named() {
    let folder = folder();
    let machine = machine(&folder).await;
    let error = machine
        .qmp
        .execute_raw("x-unheard-of", Value::Null)
        .await
        .unwrap_err();
    assert!(error.is_class(&ErrorClass::CommandNotFound));
    assert!(error.to_string().contains("x-unheard-of"), "{error}");
    // The longest answer there is.
    let schema = machine
        .qmp
        .execute_raw("query-qmp-schema", Value::Null)
        .await
        .unwrap();
    assert!(schema.as_array().unwrap().len() > 100);
}

#[tokio::test]
async fn a_qemu_that_quits_is_seen_by_everybody() {
    let folder = folder();
    let machine = machine(&folder).await;
    let mut events = machine.qmp.subscribe();
    machine.qmp.execute(commands::quit {}).await.unwrap();
    machine.qmp.closed().await;
    let mut seen = Vec::new();
    let end = loop {
        match events.next().await {
            Ok(event) => seen.push(event.name.clone()),
            Err(end) => break end,
        }
    };
    assert_eq!(seen, ["SHUTDOWN"]);
    assert!(matches!(end, EventError::Closed { .. }), "{end}");
    assert!(
        machine
            .qmp
            .execute(commands::query_status {})
            .await
            .unwrap_err()
            .is_closed()
    );
}

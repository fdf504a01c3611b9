//! Migrations between two real QEMUs without a guest.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::time::Duration;

use qemu::{Content, LIMIT, Machine, OFTEN, folder, migrating, stream};
use serde_json::{Map, Value, json};
use symvirt_qmp::commands::RunState;
use symvirt_qmp::migration::{
    Cancelled, Endpoint, Incoming, MigrateError, Outgoing, Settings, Status, configure,
};

/// Slow enough never to end by itself.
fn crawling() -> Settings {
    Settings {
        max_bandwidth: Some(4096),
        ..Settings::live()
    }
}

fn statuses(progress: &symvirt_qmp::migration::Progress) -> Vec<Status> {
    progress
        .history
        .iter()
        .map(|change| change.status)
        .collect()
}

#[tokio::test]
async fn a_machine_moves_with_its_memory_over_unix_and_tcp() {
    for tcp in [false, true] {
        let folder = folder();
        let content = Content::new(&folder, 4 << 20);
        let load = content.arguments();
        let load: Vec<&str> = load.iter().map(String::as_str).collect();
        let source = Machine::start(&folder, "source", &load).await;
        let target = Machine::waiting(&folder, "target", &load).await;
        source.run().await;

        let settings = Settings::live();
        let mut endpoint = match tcp {
            true => Endpoint::Tcp {
                host: "127.0.0.1".into(),
                port: 0,
            },
            false => stream(&folder),
        };
        let mut incoming = Incoming::listen(&target.qmp, &endpoint, &settings)
            .await
            .unwrap();
        let port = incoming.port().await.unwrap();
        assert_eq!(port.is_some(), tcp);
        if let Some(port) = port {
            endpoint = Endpoint::Tcp {
                host: "127.0.0.1".into(),
                port,
            };
        }
        let outgoing = Outgoing::start(&source.qmp, &endpoint, &settings, OFTEN)
            .await
            .unwrap();
        let done = outgoing.finish(LIMIT).await.unwrap();
        incoming.finish(LIMIT).await.unwrap();

        assert_eq!(done.status, Status::completed);
        assert!(done.downtime.is_some() && done.setup.is_some() && done.elapsed.is_some());
        assert!(done.transferred > 4 << 20, "{done:?}");
        assert!(done.total >= 128 << 20, "{done:?}");
        assert!(done.entered(Status::completed).is_some(), "{done:?}");
        // QEMU announces the end before it leaves the state in which it came about.
        let left = source.status().await;
        assert!(
            matches!(left, RunState::postmigrate | RunState::finish_migrate),
            "{left:?}"
        );
        assert_eq!(
            target.status().await,
            RunState::paused,
            "nobody told it to run"
        );
        content.assert_in(&target, folder.path()).await;
        target.run().await;
        assert_eq!(target.status().await, RunState::running);
    }
}

#[tokio::test]
async fn a_migration_pauses_before_the_switchover_and_continues_when_told() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    source.run().await;
    let settings = Settings {
        pause_before_switchover: true,
        ..Settings::live()
    };
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &settings, &settings).await;

    outgoing.wait_for_switchover(LIMIT).await.unwrap();
    assert_ne!(
        source.status().await,
        RunState::running,
        "the machine stands still"
    );
    let early = incoming.finish(Duration::from_millis(100)).await;
    assert!(
        matches!(early, Err(MigrateError::Timeout { .. })),
        "{early:?}"
    );

    outgoing.continue_switchover().await.unwrap();
    let done = outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    let passed = statuses(&done);
    use Status::{active, completed, device, pre_switchover, setup};
    assert_eq!(passed, [setup, active, pre_switchover, device, completed]);
}

#[tokio::test]
async fn a_migration_that_awaits_the_stop_iterates_until_the_machine_is_stopped() {
    let folder = folder();
    let content = Content::new(&folder, 4 << 20);
    let load = content.arguments();
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    let source = Machine::start(&folder, "source", &load).await;
    let target = Machine::waiting(&folder, "target", &load).await;
    source.run().await;
    let there = Settings {
        pause_before_switchover: true,
        ..Settings::live()
    };
    let here = Settings {
        await_stop: true,
        ..there.clone()
    };
    let (mut incoming, outgoing) = migrating(&folder, [&source, &target], &here, &there).await;

    // Nothing dirties its memory: without the word to stop it would be over after one pass.
    let ready = outgoing
        .wait_until(LIMIT, |progress| progress.passes > 50)
        .await
        .unwrap();
    assert_eq!(ready.status, Status::active);
    assert_eq!(source.status().await, RunState::running);

    assert!(outgoing.stop_machine().await.unwrap().is_some());
    outgoing.wait_for_switchover(LIMIT).await.unwrap();
    outgoing.continue_switchover().await.unwrap();
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    assert_eq!(target.status().await, RunState::paused);
    content.assert_in(&target, folder.path()).await;
    target.run().await;
    assert_eq!(target.status().await, RunState::running);
}

#[tokio::test]
async fn a_stopped_machine_that_runs_again_goes_on_iterating() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    source.run().await;
    let slow = Settings {
        pause_before_switchover: true,
        await_stop: true,
        ..crawling()
    };
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &slow, &Settings::live()).await;
    outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    outgoing.stop_machine().await.unwrap();
    source.run().await;
    outgoing.set_bandwidth(0).await.unwrap();
    let more = outgoing
        .wait_until(LIMIT, |progress| progress.passes > 50)
        .await
        .unwrap();
    assert_eq!(more.status, Status::active);
    assert_eq!(outgoing.cancel(LIMIT).await.unwrap(), Cancelled::StillHere);
    assert_eq!(source.status().await, RunState::running);
    assert!(incoming.finish(LIMIT).await.is_err());
}

#[tokio::test]
async fn a_migration_cancelled_before_the_switchover_leaves_the_source_running() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    source.run().await;
    let settings = Settings {
        pause_before_switchover: true,
        ..Settings::live()
    };
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &settings, &settings).await;
    outgoing.wait_for_switchover(LIMIT).await.unwrap();

    assert_eq!(outgoing.cancel(LIMIT).await.unwrap(), Cancelled::StillHere);
    assert_eq!(source.status().await, RunState::running);
    let ended = incoming.finish(LIMIT).await;
    assert!(
        matches!(ended, Err(MigrateError::Failed { .. })),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_running_migration_shows_progress_takes_new_limits_and_can_be_cancelled_and_repeated() {
    let folder = folder();
    let content = Content::new(&folder, 4 << 20);
    let load = content.arguments();
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    let source = Machine::start(&folder, "source", &load).await;
    source.run().await;

    let target = Machine::waiting(&folder, "target", &load).await;
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &crawling(), &crawling()).await;
    let seen = outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    assert_eq!(seen.status, Status::active);
    let late = outgoing.finish(Duration::from_millis(50)).await;
    assert!(
        matches!(late, Err(MigrateError::Timeout { .. })),
        "{late:?}"
    );
    assert_eq!(outgoing.cancel(LIMIT).await.unwrap(), Cancelled::StillHere);
    assert!(matches!(
        outgoing.finish(LIMIT).await,
        Err(MigrateError::Cancelled { .. })
    ));
    assert_eq!(source.status().await, RunState::running);
    assert!(incoming.finish(LIMIT).await.is_err());

    let target = Machine::waiting(&folder, "target2", &load).await;
    let endpoint = Endpoint::Unix(folder.path().join("stream2"));
    let mut incoming = Incoming::listen(&target.qmp, &endpoint, &crawling())
        .await
        .unwrap();
    let outgoing = Outgoing::start(&source.qmp, &endpoint, &crawling(), OFTEN)
        .await
        .unwrap();
    outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    outgoing
        .set_downtime_limit(Duration::from_secs(2))
        .await
        .unwrap();
    outgoing.set_bandwidth(0).await.unwrap();
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    content.assert_in(&target, folder.path()).await;
}

#[tokio::test]
async fn a_machine_restored_from_a_mapped_file_migrates_despite_its_stale_status() {
    let folder = folder();
    let content = Content::new(&folder, 4 << 20);
    let load = content.arguments();
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    let file = Endpoint::File(folder.path().join("saved"));
    let saved = Machine::start(&folder, "saved", &load).await;
    let saving = Outgoing::start(&saved.qmp, &file, &Settings::file(), OFTEN)
        .await
        .unwrap();
    saving.finish(LIMIT).await.unwrap();

    let restored = Machine::waiting(&folder, "restored", &load).await;
    let mut incoming = Incoming::listen(&restored.qmp, &file, &Settings::file())
        .await
        .unwrap();
    incoming.finish(LIMIT).await.unwrap();
    content.assert_in(&restored, folder.path()).await;
    restored.run().await;
    let stale = symvirt_qmp::migration::query(&restored.qmp).await.unwrap();
    assert_eq!(
        stale.status,
        Status::completed,
        "the trap that the rest of this test is about"
    );

    // Crawling, so that whoever believes the stale status says so now.
    let target = Machine::waiting(&folder, "target", &load).await;
    let endpoint = stream(&folder);
    let mut incoming = Incoming::listen(&target.qmp, &endpoint, &crawling())
        .await
        .unwrap();
    let outgoing = Outgoing::start(&restored.qmp, &endpoint, &crawling(), OFTEN)
        .await
        .unwrap();
    let active = outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    assert_eq!(statuses(&active), [Status::setup, Status::active]);
    outgoing.set_bandwidth(0).await.unwrap();
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    content.assert_in(&target, folder.path()).await;
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

#[tokio::test]
async fn a_destination_that_is_not_there_is_a_failure_with_a_reason() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    source.run().await;
    let endpoint = Endpoint::Unix(folder.path().join("nobody"));
    let outgoing = Outgoing::start(&source.qmp, &endpoint, &Settings::live(), OFTEN)
        .await
        .unwrap();
    let Err(MigrateError::Failed { reason, .. }) = outgoing.finish(LIMIT).await else {
        panic!()
    };
    assert!(reason.contains("No such file"), "{reason}");
    assert_eq!(source.status().await, RunState::running);
}

#[tokio::test]
async fn a_destination_with_other_devices_fails_and_the_source_runs_on() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &["-device", "virtio-rng-pci"]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    source.run().await;
    let endpoint = stream(&folder);
    let settings = Settings::live();
    let mut incoming = Incoming::listen(&target.qmp, &endpoint, &settings)
        .await
        .unwrap();
    let outgoing = Outgoing::start(&source.qmp, &endpoint, &settings, OFTEN)
        .await
        .unwrap();
    let Err(MigrateError::Failed { .. }) = outgoing.finish(LIMIT).await else {
        panic!()
    };
    let Err(MigrateError::Failed { reason, .. }) = incoming.finish(LIMIT).await else {
        panic!()
    };
    assert!(reason.contains("load of migration failed"), "{reason}");
    assert_eq!(source.status().await, RunState::running);
}

#[tokio::test]
async fn a_destination_that_dies_fails_the_migration_and_the_source_runs_on() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let mut target = Machine::waiting(&folder, "target", &[]).await;
    source.run().await;
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &crawling(), &crawling()).await;
    outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    target.kill().await;
    assert!(matches!(
        outgoing.finish(LIMIT).await,
        Err(MigrateError::Failed { .. })
    ));
    assert!(matches!(
        incoming.finish(LIMIT).await,
        Err(MigrateError::Command { .. })
    ));
    assert_eq!(source.status().await, RunState::running);
}

#[tokio::test]
async fn a_source_that_dies_is_reported_to_whoever_waits_for_its_migration() {
    let folder = folder();
    let mut source = Machine::start(&folder, "source", &[]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    let (mut incoming, outgoing) =
        migrating(&folder, [&source, &target], &crawling(), &crawling()).await;
    outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    source.kill().await;
    let error = outgoing.finish(LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Command { source, .. } if source.is_closed()),
        "{error}"
    );
    assert!(matches!(
        incoming.finish(LIMIT).await,
        Err(MigrateError::Failed { .. })
    ));
}

#[tokio::test]
async fn a_migration_can_be_taken_over_by_another_client() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    let target = Machine::waiting(&folder, "target", &[]).await;
    let (incoming, outgoing) =
        migrating(&folder, [&source, &target], &crawling(), &crawling()).await;
    outgoing
        .wait_until(LIMIT, |progress| progress.remaining > 0)
        .await
        .unwrap();
    drop((outgoing, incoming));
    let endpoint = stream(&folder);
    let mut incoming = Incoming::attach(&target.qmp, &endpoint);
    let taken = Outgoing::attach(&source.qmp, &endpoint, OFTEN)
        .await
        .unwrap();
    taken.set_bandwidth(0).await.unwrap();
    taken.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    Incoming::attach(&target.qmp, &endpoint)
        .finish(LIMIT)
        .await
        .unwrap();
}

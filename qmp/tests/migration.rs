//! Migrations between two real QEMUs without a guest.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::time::Duration;

use qemu::{Content, LIMIT, Machine, OFTEN, crawling, folder, migrating, stream};
use symvirt_qmp::commands::RunState;
use symvirt_qmp::migration::{
    Cancelled, Endpoint, Incoming, MigrateError, Outgoing, Settings, Status,
};

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

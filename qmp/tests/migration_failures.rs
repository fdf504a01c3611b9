//! Migrations whose other end is missing, different, or dies.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use qemu::{LIMIT, Machine, OFTEN, crawling, folder, migrating, stream};
use symvirt_qmp::commands::RunState;
use symvirt_qmp::migration::{Endpoint, Incoming, MigrateError, Outgoing, Progress, Settings};

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

/// With a second channel QEMU 10.0 never lets go, and never migrates again.
#[tokio::test]
async fn a_source_whose_destination_died_between_compressed_passes_can_migrate_again() {
    let folder = folder();
    let source = Machine::start(&folder, "source", &[]).await;
    source.run().await;
    let there = Settings {
        multifd_channels: Some(1),
        compress: true,
        ..Settings::live()
    };
    let here = Settings {
        await_stop: true,
        ..there.clone()
    };
    let nobody = Endpoint::Unix(folder.path().join("nobody"));
    for number in 0..5 {
        let mut target = Machine::waiting(&folder, &format!("target{number}"), &[]).await;
        let (_incoming, outgoing) = migrating(&folder, [&source, &target], &here, &there).await;
        let passes = |progress: &Progress| progress.passes >= 3;
        outgoing.wait_until(LIMIT, passes).await.unwrap();
        target.kill().await;
        let failed = outgoing.finish(LIMIT).await;
        assert!(
            matches!(failed, Err(MigrateError::Failed { .. })),
            "{failed:?}"
        );
        let next = Outgoing::start(&source.qmp, &nobody, &here, OFTEN).await;
        let failed = next.unwrap().finish(LIMIT).await;
        assert!(
            matches!(failed, Err(MigrateError::Failed { .. })),
            "{failed:?}"
        );
    }
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

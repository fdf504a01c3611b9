//! What a machine writes while it is copied arrives.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::time::Duration;

use qemu::{Content, LIMIT, Machine, Writer, folder, migrating};
use symvirt_qmp::migration::{Settings, set_bandwidth};

/// The machine writes to the same few pages and to nothing else, from before they are sent for the
/// first time until it is stopped. A QEMU that emulates its CPU loses these stores where its
/// downtime limit lets it look for written pages before it has sent those it knows of: in two moves
/// of three.
#[tokio::test]
async fn a_machine_that_is_stopped_by_us_arrives_as_it_was_left() {
    for _ in 0..3 {
        assert_eq!(lost().await, 0, "pages that arrived out of date, of 16");
    }
}

/// How many pages of a machine that was moved arrived out of date.
async fn lost() -> usize {
    let folder = folder();
    let (content, writer) = (Content::new(&folder, 8 << 20), Writer::new(&folder));
    let load = content.arguments().into_iter().chain(writer.arguments());
    let load: Vec<String> = load.collect();
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    let source = Machine::start(&folder, "source", &load).await;
    let target = Machine::waiting(&folder, "target", &load).await;
    source.run().await;
    writer.begun(&source, folder.path()).await;

    let there = Settings {
        pause_before_switchover: true,
        ..Settings::live()
    };
    let here = Settings {
        await_stop: true,
        downtime_limit: Some(Duration::from_secs(2000)),
        max_bandwidth: Some(100 << 10),
        ..there.clone()
    };
    let (mut incoming, outgoing) = migrating(&folder, [&source, &target], &here, &there).await;
    // Long enough to look once before the pages that are written have gone.
    tokio::time::sleep(Duration::from_secs(1)).await;
    set_bandwidth(&source.qmp, 0).await.unwrap();
    outgoing
        .wait_until(LIMIT, |it| it.passes > 3 && it.remaining < 1 << 20)
        .await
        .unwrap();
    outgoing.stop_machine().await.unwrap();
    outgoing.wait_for_switchover(LIMIT).await.unwrap();
    outgoing.continue_switchover().await.unwrap();
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();

    let left = writer.written(&source, folder.path()).await;
    let arrived = writer.written(&target, folder.path()).await;
    content.assert_in(&target, folder.path()).await;
    let pages = left.chunks(4096).zip(arrived.chunks(4096));
    pages.filter(|(left, arrived)| left != arrived).count()
}

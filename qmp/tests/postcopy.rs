//! Machines that cross before their memory, between two real QEMUs.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod qemu;

use std::path::PathBuf;
use std::time::Duration;

use qemu::{Content, LIMIT, Machine, OFTEN, crawling, folder};
use symvirt_qmp::Error;
use symvirt_qmp::commands::{self, RunState};
use symvirt_qmp::migration::{
    Cancelled, Endpoint, Incoming, MigrateError, Outgoing, Settings, Status,
};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Of memory that has content: at [`SLOWLY`], some seconds.
const SIZE: usize = 4 << 20;
const SLOWLY: u64 = 1 << 20;
/// Enough for a monitor that does answer.
const SOON: Duration = Duration::from_millis(500);

/// A link between two QEMUs that can be broken.
struct Link {
    cut: oneshot::Sender<()>,
    /// Closes the source's ends when it ends; returns those of the destination.
    carries: JoinHandle<Vec<std::os::unix::net::UnixStream>>,
}

impl Link {
    fn new(folder: &TempDir, to: PathBuf) -> (Link, Endpoint) {
        let from = folder.path().join("link");
        let listener = UnixListener::bind(&from).unwrap();
        let (cut, mut is_cut) = oneshot::channel();
        let carries = tokio::spawn(async move {
            let (mut channels, mut kept) = (JoinSet::new(), Vec::new());
            loop {
                let mut source = tokio::select! {
                    connected = listener.accept() => connected.unwrap().0,
                    _ = &mut is_cut => break,
                };
                let target = UnixStream::connect(&to).await.unwrap().into_std().unwrap();
                kept.push(target.try_clone().unwrap());
                let mut target = UnixStream::from_std(target).unwrap();
                channels.spawn(async move { copy_bidirectional(&mut source, &mut target).await });
            }
            channels.shutdown().await;
            kept
        });
        (Link { cut, carries }, Endpoint::Unix(from))
    }

    /// The destination's ends, which do not know yet.
    async fn cut(self) -> Vec<std::os::unix::net::UnixStream> {
        self.cut.send(()).unwrap();
        self.carries.await.unwrap()
    }
}

struct Crossing {
    folder: TempDir,
    content: Content,
    source: Machine,
    target: Machine,
    incoming: Incoming,
    outgoing: Outgoing,
    link: Option<Link>,
}

impl Crossing {
    /// Two machines, the first of which is copied at a crawl and was told that it is to cross with
    /// most of it left.
    async fn begin() -> Crossing {
        let folder = folder();
        let content = Content::new(&folder, SIZE);
        let load = content.arguments();
        let load: Vec<&str> = load.iter().map(String::as_str).collect();
        let source = Machine::start(&folder, "source", &load).await;
        let target = Machine::waiting(&folder, "target", &load).await;
        source.run().await;
        let there = Settings {
            pause_before_switchover: true,
            postcopy: true,
            ..crawling()
        };
        let here = Settings {
            await_stop: true,
            ..there.clone()
        };
        let at = folder.path().join("stream");
        let (link, to) = Link::new(&folder, at.clone());
        let incoming = Incoming::listen(&target.qmp, &Endpoint::Unix(at), &there).await;
        let outgoing = Outgoing::start(&source.qmp, &to, &here, OFTEN).await;
        let outgoing = outgoing.unwrap();
        outgoing
            .wait_until(LIMIT, |progress| progress.remaining > 0)
            .await
            .unwrap();
        outgoing.start_postcopy(SLOWLY).await.unwrap();
        assert_eq!(
            source.status().await,
            RunState::running,
            "nobody stopped it"
        );
        outgoing.stop_machine().await.unwrap();
        outgoing.wait_for_switchover(LIMIT).await.unwrap();
        Crossing {
            folder,
            content,
            source,
            target,
            incoming: incoming.unwrap(),
            outgoing,
            link: Some(link),
        }
    }

    /// It runs at its destination, and most of it is missing there.
    async fn cross(&mut self) {
        self.outgoing.continue_switchover().await.unwrap();
        let crossed = self.outgoing.wait_for_crossing(LIMIT).await.unwrap();
        assert_eq!(crossed.status, Status::postcopy_active);
        self.incoming.loaded(LIMIT).await.unwrap();
        assert_eq!(
            self.target.status().await,
            RunState::paused,
            "nobody told it to run"
        );
        self.target.run().await;
        assert_eq!(self.target.status().await, RunState::running);
    }

    async fn pauses(&self) {
        let paused = |progress: &symvirt_qmp::migration::Progress| {
            progress.status == Status::postcopy_paused
        };
        self.outgoing.wait_until(LIMIT, paused).await.unwrap();
    }

    /// After a try to join that failed.
    async fn pauses_again(&self) {
        let paused = |progress: &symvirt_qmp::migration::Progress| {
            let history = progress.history.iter();
            let pauses = history.filter(|change| change.status == Status::postcopy_paused);
            pauses.count() == 2
        };
        self.outgoing.wait_until(LIMIT, paused).await.unwrap();
    }

    async fn ends_well(&mut self) {
        self.outgoing.finish(LIMIT).await.unwrap();
        self.incoming.finish(LIMIT).await.unwrap();
        self.content
            .assert_in(&self.target, self.folder.path())
            .await;
        assert_eq!(self.target.status().await, RunState::running);
    }
}

#[tokio::test]
async fn a_machine_crosses_before_its_memory_which_follows() {
    let mut crossing = Crossing::begin().await;
    crossing.cross().await;
    let refused = crossing.outgoing.cancel(LIMIT).await;
    assert!(
        matches!(refused, Err(MigrateError::Command { .. })),
        "{refused:?}"
    );
    let twice = crossing.source.qmp.execute(commands::cont {}).await;
    assert!(twice.is_err(), "it runs at its destination");
    let early = crossing.incoming.finish(Duration::from_millis(50)).await;
    assert!(
        matches!(early, Err(MigrateError::Timeout { .. })),
        "{early:?}"
    );
    // What is looked at is fetched, before its turn.
    crossing
        .content
        .assert_in(&crossing.target, crossing.folder.path())
        .await;
    crossing.ends_well().await;
}

#[tokio::test]
async fn a_machine_that_stands_before_its_crossing_can_be_kept_and_copied_again() {
    let crossing = Crossing::begin().await;
    let cancelled = crossing.outgoing.cancel(LIMIT).await.unwrap();
    assert_eq!(cancelled, Cancelled::StillHere);
    crossing.source.run().await;
    assert_eq!(crossing.source.status().await, RunState::running);

    let nobody = Endpoint::Unix(crossing.folder.path().join("nobody"));
    let next = Outgoing::start(&crossing.source.qmp, &nobody, &Settings::live(), OFTEN).await;
    let failed = next.unwrap().finish(LIMIT).await;
    assert!(
        matches!(failed, Err(MigrateError::Failed { .. })),
        "{failed:?}"
    );
    assert_eq!(crossing.source.status().await, RunState::running);
}

/// The monitor of a machine that waits for a page does nothing else, but for what mends that.
#[tokio::test]
async fn a_machine_whose_link_breaks_waits_until_it_is_joined_again() {
    let mut crossing = Crossing::begin().await;
    crossing.cross().await;
    let of_target = crossing.link.take().unwrap().cut().await;
    crossing.pauses().await;
    let anew = Endpoint::Unix(crossing.folder.path().join("anew"));
    let mend = async {
        let look = commands::query_status {};
        let stuck = crossing.target.qmp.execute_within(look, SOON).await;
        assert!(matches!(stuck, Err(Error::Timeout { .. })), "{stuck:?}");
        crossing.incoming.rejoin(&anew).await.unwrap();
        crossing.outgoing.rejoin(&anew).await.unwrap();
    };
    let (folder, target) = (crossing.folder.path(), &crossing.target);
    tokio::join!(crossing.content.assert_in(target, folder), mend);
    drop(of_target);
    crossing.ends_well().await;
}

#[tokio::test]
async fn a_source_that_finds_nobody_to_join_can_try_again() {
    let mut crossing = Crossing::begin().await;
    crossing.cross().await;
    drop(crossing.link.take().unwrap().cut().await);
    crossing.pauses().await;
    let nobody = Endpoint::Unix(crossing.folder.path().join("nobody"));
    crossing.outgoing.rejoin(&nobody).await.unwrap();
    crossing.pauses_again().await;
    for number in 0..3 {
        let anew = Endpoint::Unix(crossing.folder.path().join(format!("anew{number}")));
        crossing.incoming.rejoin(&anew).await.unwrap();
        if number == 2 {
            crossing.outgoing.rejoin(&anew).await.unwrap();
        }
    }
    crossing.ends_well().await;
}

#[tokio::test]
async fn a_destination_that_dies_takes_the_machine_with_it() {
    let mut crossing = Crossing::begin().await;
    crossing.cross().await;
    crossing.target.kill().await;
    crossing.pauses().await;
    let twice = crossing.source.qmp.execute(commands::cont {}).await;
    assert!(twice.is_err(), "it has run elsewhere");
}

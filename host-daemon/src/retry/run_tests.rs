//! Promises of the loop, under tokio's paused clock.

use std::sync::Mutex;

use super::*;
use crate::operation::Target;
use crate::retry::{Port, SeenVm};

/// A gang of one VM, as it is made by a test.
struct World {
    hca: bool,
    up: bool,
    native: bool,
    vetoes: u32,
    looks: u32,
    switches: u32,
    /// Attempts that are not shown any more.
    forgotten: Vec<String>,
    /// Its address changes with each look.
    restless: bool,
}

struct Fake(Mutex<World>);

impl Fake {
    fn new(world: World) -> Arc<Self> {
        Arc::new(Self(Mutex::new(world)))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut World) -> T) -> T {
        use_it(&mut self.0.lock().unwrap())
    }
}

fn world() -> World {
    World {
        hca: true,
        up: false,
        native: false,
        vetoes: 0,
        looks: 0,
        switches: 0,
        forgotten: Vec::new(),
        restless: false,
    }
}

impl Surroundings for Fake {
    fn look(&self, _gang: &GangName) -> BoxFuture<'_, Seen> {
        Box::pin(async {
            self.with(|world| {
                world.looks += 1;
                let gid = if world.restless { world.looks } else { 0 };
                Seen {
                    busy: None,
                    interconnect: match world.native {
                        true => Target::Native,
                        false => Target::Fallback,
                    },
                    vms: vec![SeenVm {
                        vm: "vm1".parse().unwrap(),
                        running: true,
                        heard: true,
                        hca: world.hca.then(|| "hca0".parse().unwrap()),
                        port: match world.up {
                            true => Port::Active(vec![format!("fe80::{gid}")]),
                            false => Port::Down,
                        },
                    }],
                }
            })
        })
    }

    fn plug(&self, _: &Wish, _: VmName, hca: HcaName) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            assert_eq!(hca.as_str(), "hca0");
            self.with(|world| world.hca = true);
            Ok(())
        })
    }

    fn forget(&self, operation: &OperationId) {
        self.with(|world| world.forgotten.push(operation.to_string()));
    }

    fn switch(&self, _gang: &GangName) -> BoxFuture<'_, Result<Ended, String>> {
        Box::pin(async {
            self.with(|world| {
                world.switches += 1;
                let vetoed = world.switches <= world.vetoes;
                world.native |= !vetoed;
                Ok(Ended {
                    operation: format!("b-{}", world.switches).parse().unwrap(),
                    phase: if vetoed {
                        Phase::RolledBack
                    } else {
                        Phase::Done
                    },
                    reason: "injected".into(),
                })
            })
        })
    }
}

fn wishes(folder: &tempfile::TempDir) -> Arc<Wishes> {
    Arc::new(Wishes::load(folder.path().to_owned()).unwrap())
}

fn wish() -> Wish {
    Wish {
        operation: "a-7".parse().unwrap(),
        gang: "job".parse().unwrap(),
        hcas: [("vm1".parse().unwrap(), "hca0".parse().unwrap())].into(),
        reason: "no carrier".into(),
    }
}

/// Lets the loop run for so long, by the paused clock.
async fn runs(wishes: &Arc<Wishes>, fake: &Arc<Fake>, seconds: u64) {
    let running = run(wishes.clone(), fake.clone());
    assert!(
        timeout(Duration::from_secs(seconds), running)
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_is_moved_once_its_port_has_come_up_and_then_nothing_is_wished_for() {
    let folder = tempfile::tempdir().unwrap();
    let (wishes, fake) = (wishes(&folder), Fake::new(world()));
    wishes.put(wish()).unwrap();
    runs(&wishes, &fake, 3600).await;
    assert_eq!(fake.with(|world| world.switches), 0, "the port is down");
    assert!(wishes.list()[0].waiting.contains("no port"));
    let looks = fake.with(|world| world.looks);
    assert!(looks < 3600 / 20, "{looks} looks at a port that stays down");
    fake.with(|world| world.up = true);
    runs(&wishes, &fake, 60).await;
    assert_eq!(fake.with(|world| (world.switches, world.native)), (1, true));
    assert!(wishes.list().is_empty());
    let looks = fake.with(|world| world.looks);
    runs(&wishes, &fake, 3600).await;
    assert_eq!(
        fake.with(|world| world.looks),
        looks,
        "nobody is left alone"
    );
}

#[tokio::test(start_paused = true)]
async fn an_hca_that_could_not_be_plugged_is_plugged_later() {
    let folder = tempfile::tempdir().unwrap();
    let missing = World {
        hca: false,
        up: true,
        ..world()
    };
    let (wishes, fake) = (wishes(&folder), Fake::new(missing));
    wishes.put(wish()).unwrap();
    runs(&wishes, &fake, 120).await;
    assert!(fake.with(|world| world.hca && world.native));
    assert!(wishes.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_come_later_and_later_and_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let stubborn = World {
        up: true,
        vetoes: 1000,
        ..world()
    };
    let (wishes, fake) = (wishes(&folder), Fake::new(stubborn));
    wishes.put(wish()).unwrap();
    runs(&wishes, &fake, 3600).await;
    let switches = fake.with(|world| world.switches);
    assert!((5..14).contains(&switches), "{switches} in an hour");
    let shown = wishes.list().remove(0);
    assert_eq!(shown.attempts, u64::from(switches));
    // As many journals would be read at every start, and shown.
    let forgotten = fake.with(|world| world.forgotten.len());
    assert_eq!(forgotten, fake.with(|world| world.switches as usize) - 1);
    assert_eq!(shown.attempt, format!("b-{switches}").parse().ok());
}

#[tokio::test(start_paused = true)]
async fn what_has_failed_all_day_is_tried_once_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let stubborn = World {
        up: true,
        vetoes: 1000,
        ..world()
    };
    let (wishes, fake) = (wishes(&folder), Fake::new(stubborn));
    wishes.put(wish()).unwrap();
    runs(&wishes, &fake, 24 * 3600).await;
    let switches = fake.with(|world| world.switches);
    assert!((20..35).contains(&switches), "{switches} in a day");
}

#[tokio::test(start_paused = true)]
async fn addresses_that_go_on_changing_are_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let restless = World {
        up: true,
        restless: true,
        ..world()
    };
    let (wishes, fake) = (wishes(&folder), Fake::new(restless));
    wishes.put(wish()).unwrap();
    runs(&wishes, &fake, 600).await;
    assert_eq!(fake.with(|world| world.switches), 0);
    fake.with(|world| world.restless = false);
    runs(&wishes, &fake, 120).await;
    assert_eq!(fake.with(|world| world.switches), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_is_given_up_or_made_while_the_loop_runs_is_seen_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (wishes, fake) = (
        wishes(&folder),
        Fake::new(World {
            up: true,
            ..world()
        }),
    );
    let running = tokio::spawn(run(wishes.clone(), fake.clone()));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(fake.with(|world| world.looks), 0);
    wishes.put(wish()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.with(|world| world.looks), 1);
    assert!(wishes.remove(&wish().operation).unwrap());
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(fake.with(|world| (world.looks, world.switches)), (1, 0));
    running.abort();
}

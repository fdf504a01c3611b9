//! Two hosts and a gang that exist only in memory, with the rules of the real ones: what breaks a
//! rule there panics here.

mod faults;
mod guests;
mod host;
mod postcopy;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use symvirt_host::operation::driver::{Log, drive};
use symvirt_host::operation::effects::{Clock, Guests, Host};
use symvirt_host::operation::journal::{JournalError, Record, Replayed};
use symvirt_host::operation::patient::Patient;
use symvirt_host::operation::phases::Crew;
use symvirt_host::operation::state::{Event, next};
use symvirt_host::operation::{Limits, Mode, OperationId, Plan, Report, Request, State, Target};
use symvirt_host::operation::{Phase, VmPlan};
use tokio::sync::watch;
use tokio::time::timeout;

pub use faults::{Crash, Fault, Faults, Moment, Side};
pub use guests::SimulatedGuests;
pub use host::SimulatedHost;
pub use world::{Job, Place, Source, Vm, World};

/// Longer, on the paused clock, than any operation takes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a test starts from.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub mode: Mode,
    pub ranks: bool,
    pub source_hca: bool,
    pub destination_hca: bool,
}

impl Setting {
    /// Every combination.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for mode in [Mode::Live, Mode::Hold] {
            for bits in 0..8 {
                let bit = |n: u8| bits & (1 << n) != 0;
                let (ranks, source_hca, destination_hca) = (bit(0), bit(1), bit(2));
                all.push(Self {
                    mode,
                    ranks,
                    source_hca,
                    destination_hca,
                });
            }
        }
        all
    }

    pub fn plan(&self) -> Plan {
        let host = "a".parse().unwrap();
        let vm = |n: usize| VmPlan {
            vm: format!("vm{n}").parse().unwrap(),
            source: "a".parse().unwrap(),
            source_hca: self.source_hca.then(|| format!("hca{n}").parse().unwrap()),
            destination_hca: self
                .destination_hca
                .then(|| format!("hca{n}").parse().unwrap()),
        };
        Plan {
            request_id: None,
            id: OperationId::nth(&host, 1),
            request: Request::Migrate {
                gang: "job".parse().unwrap(),
                to: "b".parse().unwrap(),
                mode: self.mode,
                limits: Limits::default(),
            },
            vms: vec![vm(1), vm(2)],
            ranks: self.ranks,
            interconnect: Target::Native,
            planned_ms: 0,
        }
    }
}

/// A clock that jumps by any amount, forth and back, each time that it is read: nothing that is done
/// to VMs may depend on it.
#[derive(Default)]
struct Jumping(AtomicU64);

impl Clock for Jumping {
    fn now_ms(&self) -> u64 {
        let reading = self.0.fetch_add(1, Ordering::Relaxed);
        reading.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The journal in memory, which outlives the daemons that write it.
#[derive(Default)]
struct Kept {
    records: Vec<Record>,
    cancel_at: Option<usize>,
}

/// The journal as one daemon has it open: can ask for a cancel as it takes a record, or end the
/// daemon.
struct Memory {
    kept: Arc<Mutex<Kept>>,
    cancel: watch::Sender<bool>,
    world: Arc<Mutex<World>>,
    incarnation: usize,
}

impl Log for Memory {
    fn append(&mut self, record: Record, _at_ms: u64) -> Result<(), JournalError> {
        let mut world = self.world.lock().unwrap();
        if world.incarnation != self.incarnation {
            return Ok(());
        }
        let mut kept = self.kept.lock().unwrap();
        let n = kept.records.len();
        if kept.cancel_at == Some(n) {
            self.cancel.send_replace(true);
        }
        let crash = world.faults.take_crash_at_record(n);
        if crash.is_none_or(|(_, written)| written) {
            kept.records.push(record);
        }
        if let Some((crash, _)) = crash {
            world.crash(crash);
        }
        Ok(())
    }
}

/// How a simulated operation ended.
pub struct Ended {
    pub state: State,
    pub report: Report,
    pub records: usize,
    pub world: World,
    pub faults: Faults,
}

/// Runs an operation in a world with faults, or with a cancel at a record of its journal. A daemon
/// that ends is followed by another, which goes on as [`symvirt_host::operation::Engine`] does.
pub async fn run(setting: Setting, faults: impl Into<Faults>, cancel_at: Option<usize>) -> Ended {
    let faults = faults.into();
    let what = format!("{setting:?}, {faults:?}, cancelled at record {cancel_at:?}");
    let ended = timeout(LONGEST, run_on(setting, faults, cancel_at)).await;
    ended.unwrap_or_else(|_| panic!("it never ends: {what}"))
}

async fn run_on(setting: Setting, faults: Faults, cancel_at: Option<usize>) -> Ended {
    let mut plan = setting.plan();
    if let (Some(asked), Request::Migrate { limits, .. }) = (faults.dirties(), &mut plan.request) {
        limits.if_not_converging = asked;
        limits.throttle = faults.throttle();
    }
    let world = Arc::new(Mutex::new(World::new(&plan, faults.clone())));
    let crashed = world.lock().unwrap().crashed.clone();
    let kept = Arc::new(Mutex::new(Kept {
        records: Vec::new(),
        cancel_at,
    }));
    loop {
        let daemon = Incarnation::start(&plan, &world, &kept);
        tokio::select! {
            (state, report) = daemon.run() => {
                let (world, kept) = (world.lock().unwrap().clone(), kept.lock().unwrap());
                return Ended { state, report, records: kept.records.len(), world, faults };
            }
            () = crashed.notified() => {}
        }
    }
}

/// One life of the coordinating daemon.
struct Incarnation {
    crew: Crew,
    state: State,
    log: Memory,
    cancelled: watch::Receiver<bool>,
}

impl Incarnation {
    fn start(plan: &Plan, world: &Arc<Mutex<World>>, kept: &Arc<Mutex<Kept>>) -> Self {
        let mut replayed = Replayed::start(plan.clone());
        for record in &kept.lock().unwrap().records {
            replayed.follow(record.clone());
        }
        let (cancel, cancelled) = watch::channel(false);
        let incarnation = world.lock().unwrap().incarnation;
        let mut log = Memory {
            kept: kept.clone(),
            cancel,
            world: world.clone(),
            incarnation,
        };
        let mut state = replayed.state;
        let restarted = incarnation > 0;
        if restarted && !state.phase.is_terminal() {
            let (phase, event) = (state.phase, Event::Interrupted);
            log.append(
                Record::Outcome {
                    phase,
                    event: event.clone(),
                },
                0,
            )
            .unwrap();
            state = next(plan, state, event);
        }
        let host = |name: &str| -> Arc<dyn Host> {
            Arc::new(SimulatedHost::new(name.parse().unwrap(), world.clone()))
        };
        let hosts: [Arc<dyn Host>; 2] = [host("a"), Arc::new(Patient::new(host("b")))];
        let guests: Arc<dyn Guests> = Arc::new(SimulatedGuests::new(world.clone()));
        let crew = Crew::new(
            plan.clone(),
            &state,
            hosts,
            guests,
            Arc::new(Jumping::default()),
        );
        if restarted {
            crew.take_up(&state);
        }
        Self {
            crew,
            state,
            log,
            cancelled,
        }
    }

    async fn run(mut self) -> (State, Report) {
        let plan = self.crew.plan.clone();
        let driven = drive(&plan, self.state, &mut self.log, &self.crew, self.cancelled);
        let state = driven.await.unwrap();
        (state, self.crew.take_report())
    }
}

/// What must hold however an operation ended.
pub fn check(setting: Setting, ended: &Ended, what: &str) {
    let Ended { state, world, .. } = ended;
    let context = format!(
        "{what}, {setting:?}: {:?} {:?}",
        state.phase,
        state.reason()
    );
    assert!(state.phase.is_terminal(), "{context}");
    let told = state.phase == Phase::NeedsOperator;
    let dies = |fault: &Fault| matches!(fault, Fault::Dies(..));
    let killed = ended.faults.0.iter().any(dies);
    for (vm, place) in world.places() {
        match place {
            Place::Unresumed | Place::Standing => assert!(told, "{vm} runs nowhere; {context}"),
            Place::Lost => {
                assert!(killed, "{vm} is lost; {context}");
                assert!(told, "{vm} is lost, and nobody says so; {context}");
            }
            Place::Source | Place::Destination => {}
        }
    }
    for (vm, there) in &world.vms {
        let follows = matches!(there.source, Source::Serving(_));
        assert!(
            !follows || told,
            "the memory of {vm} still follows; {context}"
        );
    }
    if setting.ranks && world.job == Job::Held {
        assert!(told, "the job stands still; {context}");
    }
    match state.phase {
        Phase::RolledBack | Phase::Done if killed => {}
        Phase::RolledBack => {
            assert!(
                world.places().all(|(_, place)| place == Place::Source),
                "{context}"
            );
            assert!(world.hcas_are_at_source(setting.source_hca), "{context}");
            if setting.ranks {
                assert_eq!(world.job, Job::Native, "{context}");
            }
        }
        Phase::Done => {
            assert!(
                world.places().all(|(_, place)| place == Place::Destination),
                "{context}"
            );
            assert!(world.handed_over, "{context}");
        }
        Phase::Degraded | Phase::NeedsOperator => {
            assert!(state.reason().is_some(), "{context}");
        }
        _ => unreachable!("terminal"),
    }
}

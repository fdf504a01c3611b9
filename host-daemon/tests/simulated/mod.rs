//! Two hosts and a gang that exist only in memory, with the rules of the real ones: what breaks a
//! rule there panics here.

mod guests;
mod host;
mod world;

use std::sync::{Arc, Mutex};

use symvirt_host::operation::driver::{Log, drive};
use symvirt_host::operation::effects::{Clock, Guests, Host};
use symvirt_host::operation::journal::{JournalError, Record};
use symvirt_host::operation::phases::{Crew, Measured, Shown};
use symvirt_host::operation::{Limits, Mode, OperationId, Plan, Report, Request, State, Target};
use symvirt_host::operation::{Phase, VmPlan};
use tokio::sync::watch;

pub use guests::SimulatedGuests;
pub use host::SimulatedHost;
pub use world::{Fault, Job, Place, Source, Vm, World};

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

struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> u64 {
        0
    }
}

/// A journal in memory, which can ask for a cancel as it takes a record.
struct Memory {
    records: Vec<Record>,
    cancel: watch::Sender<bool>,
    cancel_at: Option<usize>,
}

impl Log for Memory {
    fn append(&mut self, record: Record, _at_ms: u64) -> Result<(), JournalError> {
        if self.cancel_at == Some(self.records.len()) {
            self.cancel.send_replace(true);
        }
        self.records.push(record);
        Ok(())
    }
}

/// How a simulated operation ended.
pub struct Ended {
    pub state: State,
    pub report: Report,
    pub records: usize,
    pub world: World,
}

/// Runs an operation in a world with a fault, or with a cancel at a record of its journal.
pub async fn run(setting: Setting, fault: Option<Fault>, cancel_at: Option<usize>) -> Ended {
    let plan = setting.plan();
    let world = Arc::new(Mutex::new(World::new(&plan, fault)));
    let host = |name: &str| -> Arc<dyn Host> {
        Arc::new(SimulatedHost::new(name.parse().unwrap(), world.clone()))
    };
    let guests: Arc<dyn Guests> = Arc::new(SimulatedGuests::new(world.clone()));
    let state = State::start(&plan);
    let shown = Shown {
        state: state.clone(),
        since_ms: 0,
        progress: Default::default(),
    };
    let crew = Crew {
        plan: plan.clone(),
        source: host("a"),
        destination: host("b"),
        guests,
        clock: Arc::new(Stopped),
        shown: watch::channel(shown).0,
        measured: Mutex::new(Measured::default()),
    };
    let (cancel, cancelled) = watch::channel(false);
    let mut log = Memory {
        records: Vec::new(),
        cancel,
        cancel_at,
    };
    let state = drive(&plan, state, &mut log, &crew, cancelled)
        .await
        .unwrap();
    let report = crew.take_report();
    let world = world.lock().unwrap().clone();
    Ended {
        state,
        report,
        records: log.records.len(),
        world,
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
    for (vm, place) in world.places() {
        match place {
            Place::Nowhere | Place::Unresumed => assert!(told, "{vm} runs nowhere; {context}"),
            Place::Source | Place::Destination => {}
        }
    }
    if setting.ranks && world.job == Job::Held {
        assert!(told, "the job stands still; {context}");
    }
    match state.phase {
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

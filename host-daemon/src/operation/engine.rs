//! The operations of this host: validate, start, show, cancel, remember.
//!
//! A request is validated completely before anything is touched; what is refused is a [`Denial`].
//! One operation at a time for a gang.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tracing::{error, info};

use super::driver::drive;
use super::effects::{Clock, Host, HostCall, HostError, HostReply};
use super::journal::{Journal, JournalError, Record, Replayed, replay};
use super::patient::Patient;
use super::phase::Phase;
use super::phases::{Crew, Shown};
use super::plan::{OperationId, Plan, Request};
use super::state::{Event, State, next};
use super::{Denial, Report};
use crate::api::error::chain;
use crate::api::model::{OperationInfo, Progress};
use crate::config::{GangName, HostConfig, HostName};
use crate::guest::{Gang, Gangs};
use crate::host::LocalHost;
use crate::peer::Peer;
use crate::retry::{Wishes, wanted};

mod afterwards;
mod asked;
mod damaged;

pub use afterwards::Occupied;

/// Everything that operations of this host need.
pub struct Engine {
    pub(super) config: Arc<HostConfig>,
    pub(super) host: Arc<LocalHost>,
    pub(super) gangs: Arc<Gangs>,
    pub(super) peers: BTreeMap<HostName, Arc<Peer>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Instant,
    wishes: Arc<Wishes>,
    turns: asked::Turns,
    directory: PathBuf,
    /// Gangs that nothing may begin on.
    damaged: BTreeMap<GangName, damaged::Damaged>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    operations: BTreeMap<OperationId, Entry>,
}

#[derive(Clone)]
struct Entry {
    cancel: watch::Sender<bool>,
    shown: watch::Receiver<OperationInfo>,
}

impl Table {
    /// Shows an operation of an earlier daemon.
    fn remember(&mut self, host: &HostName, replayed: Replayed) {
        let state = replayed.state;
        let info = OperationInfo {
            id: replayed.plan.id.clone(),
            coordinator: host.clone(),
            request: replayed.plan.request.clone(),
            phase: state.phase,
            phase_since_ms: replayed.last_ms,
            cancelled: state.cancelled,
            reason: state.reason(),
            progress: Progress::default(),
            report: replayed.report,
            plan: replayed.plan,
        };
        let (cancel, _) = watch::channel(false);
        let (_, shown) = watch::channel(info.clone());
        self.operations.insert(info.id, Entry { cancel, shown });
    }
}

/// A host that an interrupted operation needs and that is no peer any more.
struct Unknown(HostName);

impl Host for Unknown {
    fn call(&self, _call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        let host = self.0.clone();
        let reason = "it is no peer of this host any more: add its `[[peer]]` and restart symvirtd";
        Box::pin(async move {
            Err(HostError::Failed {
                host,
                reason: reason.into(),
            })
        })
    }
}

impl Engine {
    /// Reads the journals of earlier operations, and goes on with those that were interrupted.
    ///
    /// # Errors
    /// The directory of journals cannot be made or read.
    pub async fn open(
        config: Arc<HostConfig>,
        host: Arc<LocalHost>,
        gangs: Arc<Gangs>,
        peers: BTreeMap<HostName, Arc<Peer>>,
        clock: Arc<dyn Clock>,
        wishes: Arc<Wishes>,
    ) -> Result<Arc<Self>, JournalError> {
        let directory = config.state_dir.join("operations");
        let io = |verb| {
            let path = directory.clone();
            move |source| JournalError::Io { verb, path, source }
        };
        std::fs::create_dir_all(&directory).map_err(io("make directory of"))?;
        let mut table = Table::default();
        let mut interrupted = Vec::new();
        let mut damaged = damaged::Found::default();
        let mut newest: BTreeMap<GangName, u64> = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(io("list"))? {
            let path = entry.map_err(io("list"))?.path();
            if path
                .extension()
                .is_none_or(|extension| extension != "journal")
            {
                continue;
            }
            let replayed = match replay(&path) {
                Ok(Some(replayed)) => replayed,
                Ok(None) => continue,
                Err(error) => {
                    damaged.note(path, &error);
                    continue;
                }
            };
            let number = replayed.plan.id.number();
            table.last = table.last.max(number);
            let newest = newest.entry(replayed.plan.request.gang().clone());
            newest
                .and_modify(|it| *it = number.max(*it))
                .or_insert(number);
            if !replayed.state.phase.is_terminal() {
                interrupted.push(replayed);
                continue;
            }
            table.remember(&config.host, replayed);
        }
        table.last = table.last.max(damaged.last());
        let damaged = damaged.block(&host, &config.host, &newest, &mut table);
        let table = Mutex::new(table);
        let engine = Self {
            config,
            host,
            gangs,
            peers,
            clock,
            started: Instant::now(),
            wishes,
            turns: asked::Turns::default(),
            directory,
            damaged,
            table,
        };
        let engine = Arc::new(engine);
        for replayed in interrupted {
            engine.take_up(replayed)?;
        }
        Ok(engine)
    }

    /// Goes on with an operation that an earlier daemon began.
    fn take_up(self: &Arc<Self>, replayed: Replayed) -> Result<(), JournalError> {
        let mut journal = Journal::reopen(&self.directory, &replayed)?;
        let plan = replayed.plan;
        let phase = replayed.state.phase;
        let destination: Option<Arc<dyn Host>> = match &plan.request {
            Request::Switch { .. } => None,
            Request::Migrate { to, .. } => match self.peers.get(to) {
                Some(peer) => Some(peer.clone()),
                // No host can be asked anything: the call that needs it fails and says so.
                None => Some(Arc::new(Unknown(to.clone()))),
            },
        };
        let event = Event::Interrupted;
        let record = Record::Outcome {
            phase,
            event: event.clone(),
        };
        journal.append(record, self.clock.now_ms())?;
        let state = next(&plan, replayed.state, event);
        info!(operation_id = %plan.id, %phase, "operation of an earlier daemon is taken up");
        let gang = self.gangs.begin(plan.request.gang(), 0, plan.interconnect);
        for vm in &plan.vms {
            match &vm.source_hca {
                Some(hca) if !state.has_arrived(&vm.vm) => self.host.keep_for(&vm.vm, hca),
                _ => {}
            }
        }
        for vm in plan.vms.iter().filter(|vm| state.has_arrived(&vm.vm)) {
            if let Request::Migrate { to, .. } = &plan.request {
                gang.attach(&vm.vm, to);
            }
        }
        let crew = self.crew(plan, &state, destination, gang);
        crew.take_up(&state);
        let gang = crew.plan.request.gang().clone();
        self.host.lease_again(&gang, &crew.plan.id);
        self.launch(crew, journal, state);
        Ok(())
    }

    fn crew(
        &self,
        plan: Plan,
        state: &State,
        destination: Option<Arc<dyn Host>>,
        gang: Gang,
    ) -> Crew {
        let source: Arc<dyn Host> = self.host.clone();
        let destination = match destination {
            Some(peer) => Arc::new(Patient::new(peer)),
            None => source.clone(),
        };
        let hosts = [source, destination];
        Crew::new(plan, state, hosts, Arc::new(gang), self.clock.clone())
    }

    /// Starts to drive an operation, and shows it.
    fn launch(self: &Arc<Self>, crew: Crew, journal: Journal, state: State) -> OperationInfo {
        let info = self.info(&crew.plan, &crew.shown.borrow(), None);
        let (cancel, cancelled) = watch::channel(false);
        let (public, shown) = watch::channel(info.clone());
        let entry = Entry { cancel, shown };
        self.table().operations.insert(info.id.clone(), entry);
        tokio::spawn(self.clone().run(crew, journal, state, cancelled, public));
        info
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(
        self: Arc<Self>,
        crew: Crew,
        mut journal: Journal,
        state: State,
        cancelled: watch::Receiver<bool>,
        public: watch::Sender<OperationInfo>,
    ) {
        let plan = &crew.plan;
        info!(operation_id = %plan.id, request = %plan.request, "operation begins");
        let mut changes = crew.shown.subscribe();
        let mut driving = Box::pin(drive(plan, state, &mut journal, &crew, cancelled));
        let driven = loop {
            tokio::select! {
                driven = &mut driving => break driven,
                Ok(()) = changes.changed() => {
                    let shown = changes.borrow_and_update().clone();
                    // The end is shown with its report, below.
                    if !shown.state.phase.is_terminal() {
                        public.send_replace(self.info(plan, &shown, None));
                    }
                }
            }
        };
        drop(driving);
        let mut shown = crew.shown.borrow().clone();
        let is_over = driven.is_ok();
        match driven {
            Ok(state) => shown.state = state,
            Err(error) => {
                error!(operation_id = %plan.id, error = chain(&error), "journal");
                let phase = shown.state.phase;
                crew.stand_down(phase).await;
                shown.state.reasons.push(format!(
                    "{}; stopped in phase {phase}: make room on the disk and restart symvirtd, \
                     which goes on",
                    chain(&error)
                ));
                shown.state.phase = Phase::NeedsOperator;
            }
        }
        if let Some(wish) = wanted(plan, &shown.state)
            && !shown.state.done.contains(&Phase::SwitchOver)
        {
            self.wish(&crew, wish);
        }
        let report = crew.take_report();
        let phase = shown.state.phase;
        info!(operation_id = %plan.id, %phase, reason = shown.state.reason(), "operation ended");
        // One that only stands is the next daemon's, and its gang is still taken.
        if is_over {
            let record = Record::Ended {
                phase,
                report: Box::new(report.clone()),
            };
            if let Err(error) = journal.append(record, self.clock.now_ms()) {
                error!(operation_id = %plan.id, error = chain(&error), "journal");
            }
            self.host.end_lease(plan.request.gang());
        }
        public.send_replace(self.info(plan, &shown, Some(report)));
    }

    fn info(&self, plan: &Plan, shown: &Shown, report: Option<Report>) -> OperationInfo {
        OperationInfo {
            id: plan.id.clone(),
            coordinator: self.config.host.clone(),
            request: plan.request.clone(),
            plan: plan.clone(),
            phase: shown.state.phase,
            phase_since_ms: shown.since_ms,
            cancelled: shown.state.cancelled,
            reason: shown.state.reason(),
            progress: shown.progress.clone(),
            report,
        }
    }

    /// The operation under way on a gang.
    pub fn busy(&self, gang: &GangName) -> Option<OperationId> {
        self.host.leases().get(gang).cloned()
    }

    /// The gangs that an operation is under way on.
    pub fn busy_gangs(&self) -> BTreeSet<GangName> {
        self.host.leases().into_keys().collect()
    }

    /// All operations, the oldest first.
    pub fn list(&self) -> Vec<OperationInfo> {
        self.table()
            .operations
            .values()
            .map(|entry| entry.shown.borrow().clone())
            .collect()
    }

    /// One operation, and its changes.
    ///
    /// # Errors
    /// [`Denial::UnknownOperation`].
    pub fn follow(&self, id: &OperationId) -> Result<watch::Receiver<OperationInfo>, Denial> {
        let table = self.table();
        let entry = table.operations.get(id);
        entry
            .map(|entry| entry.shown.clone())
            .ok_or_else(|| Denial::UnknownOperation {
                operation: id.clone(),
            })
    }

    /// Asks for an operation to be undone.
    ///
    /// # Errors
    /// [`Denial::UnknownOperation`], [`Denial::CannotCancel`].
    pub fn cancel(&self, id: &OperationId) -> Result<OperationInfo, Denial> {
        let entry = self.table().operations.get(id).cloned();
        let entry = entry.ok_or_else(|| Denial::UnknownOperation {
            operation: id.clone(),
        })?;
        let info = entry.shown.borrow().clone();
        let operation = id.clone();
        if info.phase.is_terminal() {
            let why = format!("it has ended, {}", info.phase);
            return Err(Denial::CannotCancel { operation, why });
        }
        if !info.phase.can_cancel() {
            let why = match info.phase.is_rollback() {
                true => "it is being rolled back already".to_owned(),
                false => format!("in phase {} it is past its point of no return", info.phase),
            };
            return Err(Denial::CannotCancel { operation, why });
        }
        entry.cancel.send_replace(true);
        Ok(info)
    }
}

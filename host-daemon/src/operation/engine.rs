//! The operations of this host: validate, start, show, cancel, remember.
//!
//! A request is validated completely before anything is touched; what is refused is a [`Denial`].
//! One operation at a time for a gang.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use tracing::{error, info};

use super::driver::drive;
use super::effects::{Clock, Host};
use super::journal::{Journal, JournalError, Record, Replayed, replay};
use super::phase::Phase;
use super::phases::{Crew, Measured, Shown};
use super::plan::{OperationId, Plan, Request};
use super::state::State;
use super::validate::{Denied, Validated};
use super::{Denial, Report};
use crate::api::error::chain;
use crate::api::model::{OperationInfo, Progress};
use crate::config::{GangName, HostConfig, HostName};
use crate::guest::Gangs;
use crate::host::LocalHost;
use crate::peer::Peer;

/// Everything that operations of this host need.
pub struct Engine {
    pub(super) config: Arc<HostConfig>,
    pub(super) host: Arc<LocalHost>,
    pub(super) gangs: Arc<Gangs>,
    pub(super) peers: BTreeMap<HostName, Arc<Peer>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Instant,
    directory: PathBuf,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    busy: BTreeMap<GangName, OperationId>,
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

impl Engine {
    /// Reads the journals of earlier operations, and settles the one that was interrupted.
    ///
    /// # Errors
    /// The directory of journals cannot be made or read, or a journal is damaged.
    pub async fn open(
        config: Arc<HostConfig>,
        host: Arc<LocalHost>,
        gangs: Arc<Gangs>,
        peers: BTreeMap<HostName, Arc<Peer>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JournalError> {
        let directory = config.state_dir.join("operations");
        let io = |verb| {
            let path = directory.clone();
            move |source| JournalError::Io { verb, path, source }
        };
        std::fs::create_dir_all(&directory).map_err(io("make directory of"))?;
        let mut table = Table::default();
        let mut interrupted = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(io("list"))? {
            let path = entry.map_err(io("list"))?.path();
            if path
                .extension()
                .is_none_or(|extension| extension != "journal")
            {
                continue;
            }
            let Some(replayed) = replay(&path)? else {
                continue;
            };
            table.last = table.last.max(replayed.plan.id.number());
            if !replayed.state.phase.is_terminal() {
                interrupted.push(replayed);
                continue;
            }
            table.remember(&config.host, replayed);
        }
        let table = Mutex::new(table);
        let engine = Self {
            config,
            host,
            gangs,
            peers,
            clock,
            started: Instant::now(),
            directory,
            table,
        };
        for mut replayed in interrupted {
            replayed.state = engine.settle(&replayed.plan, replayed.state).await;
            let id = &replayed.plan.id;
            let phase = replayed.state.phase;
            info!(operation_id = %id, %phase, "interrupted operation settled");
            let mut journal = Journal::reopen(&engine.directory, id, replayed.records)?;
            let report = Box::default();
            journal.append(Record::Ended { phase, report }, engine.clock.now_ms())?;
            engine.table().remember(&engine.config.host, replayed);
        }
        Ok(engine)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Validates a request and starts its operation.
    ///
    /// # Errors
    /// [`Denied`]; nothing was changed.
    pub async fn submit(self: &Arc<Self>, request: Request) -> Result<OperationInfo, Denied> {
        let gang = request.gang().clone();
        let id = self.reserve(&gang)?;
        match self.begin(id, request).await {
            Ok(info) => Ok(info),
            Err(denied) => {
                self.table().busy.remove(&gang);
                Err(denied)
            }
        }
    }

    fn reserve(&self, gang: &GangName) -> Result<OperationId, Denial> {
        let mut table = self.table();
        if let Some(operation) = table.busy.get(gang).cloned() {
            return Err(Denial::Busy {
                gang: gang.clone(),
                operation,
            });
        }
        table.last += 1;
        let id = OperationId::nth(&self.config.host, table.last);
        table.busy.insert(gang.clone(), id.clone());
        Ok(id)
    }

    async fn begin(
        self: &Arc<Self>,
        id: OperationId,
        request: Request,
    ) -> Result<OperationInfo, Denied> {
        let Validated {
            plan,
            gang,
            destination,
            notes,
        } = self.validate(id, request).await?;
        let journal = Journal::create(&self.directory, &plan, self.clock.now_ms());
        let journal = match journal {
            Ok(journal) => journal,
            Err(error) => {
                self.release_reservation(&plan, destination.as_ref()).await;
                return Err(Denied::Journal(error));
            }
        };
        let state = State::start(&plan);
        let since_ms = self.clock.now_ms();
        let progress = Progress {
            interconnect: plan.ranks.then_some(plan.interconnect),
            ..Progress::default()
        };
        let shown = Shown {
            state: state.clone(),
            since_ms,
            progress,
        };
        let info = self.info(&plan, &shown, None);
        let (cancel, cancelled) = watch::channel(false);
        let (public, seen) = watch::channel(info.clone());
        let entry = Entry {
            cancel,
            shown: seen,
        };
        self.table().operations.insert(plan.id.clone(), entry);
        let mut measured = Measured::default();
        measured.report.notes = notes;
        let source: Arc<dyn Host> = self.host.clone();
        let crew = Arc::new(Crew {
            plan,
            destination: destination.unwrap_or_else(|| source.clone()),
            source,
            guests: Arc::new(gang),
            clock: self.clock.clone(),
            shown: watch::channel(shown).0,
            measured: Mutex::new(measured),
        });
        tokio::spawn(self.clone().run(crew, journal, state, cancelled, public));
        Ok(info)
    }

    async fn run(
        self: Arc<Self>,
        crew: Arc<Crew>,
        mut journal: Journal,
        state: State,
        cancelled: watch::Receiver<bool>,
        public: watch::Sender<OperationInfo>,
    ) {
        let plan = &crew.plan;
        info!(operation_id = %plan.id, request = %plan.request, "operation begins");
        let mut changes = crew.shown.subscribe();
        let mut driving = Box::pin(drive(plan, state, &mut journal, crew.as_ref(), cancelled));
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
        match driven {
            Ok(state) => shown.state = state,
            Err(error) => {
                error!(operation_id = %plan.id, error = chain(&error), "journal");
                let phase = shown.state.phase;
                shown.state.reasons.push(format!(
                    "{}; stopped in phase {phase}: make room on the disk and restart symvirtd",
                    chain(&error)
                ));
                shown.state.phase = Phase::NeedsOperator;
            }
        }
        let report = crew.take_report();
        let phase = shown.state.phase;
        let record = Record::Ended {
            phase,
            report: Box::new(report.clone()),
        };
        if let Err(error) = journal.append(record, self.clock.now_ms()) {
            error!(operation_id = %plan.id, error = chain(&error), "journal");
        }
        info!(operation_id = %plan.id, %phase, reason = shown.state.reason(), "operation ended");
        self.table().busy.remove(plan.request.gang());
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
        self.table().busy.get(gang).cloned()
    }

    /// The gangs that an operation is under way on.
    pub fn busy_gangs(&self) -> BTreeSet<GangName> {
        self.table().busy.keys().cloned().collect()
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

//! Agent core and coordinator in one process: what one says, the other hears at once.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::gang::{ABSENCE, Effect, Gang, GuestId, Outcome, Phase, Reason};
use symvirt_protocol::ids::Epoch;
use symvirt_protocol::query::{Answer, Reach};
use symvirt_protocol::rank::{FromRank, SwitchOrder};
use symvirt_protocol::transport::Interconnect;
use tracing::{info, warn};

use super::Record;
use super::over::Item;
use super::pace::Standing;
use super::volume::Volumes;
use crate::agent::board::Board;
use crate::agent::core::{ConnId, Core, Output};
use crate::agent::devices::Devices;
use crate::agent::overdue::Overdue;
use crate::agent::{answer, core_of, guest_name, sockets};
use crate::watch::Watch;

/// How long held ranks may refuse to be opened before the job counts as stuck.
const REFUSED: Duration = Duration::from_secs(60);

/// How long a slow-down lasts that is not repeated.
const SLOW: Duration = Duration::from_secs(2);

/// The gang under rehearsal.
pub struct Stage {
    core: Core,
    gang: Gang,
    board: Board,
    devices: Devices,
    guest: GuestId,
    /// The phase whose answers are awaited, since when.
    phase: Option<((Epoch, Phase), Instant)>,
    /// What a held gang is rebuilt onto.
    rebuild: Option<Interconnect>,
    /// Since when the switch waits for ranks that their agent does not know.
    absent_since: Option<Instant>,
    /// Since when that has been refused.
    refused: Option<Instant>,
    stuck: bool,
    overdue: Overdue,
    /// Connections of agents that have died.
    lost: HashSet<ConnId>,
    volumes: Volumes,
    /// The job's processes, whether they are ranks or not.
    pub watch: Watch,
    /// What happened.
    pub record: Record,
}

impl Stage {
    /// No ranks yet.
    pub fn new() -> Self {
        let devices = Devices::below(Path::new("/"));
        let mut stage = Stage {
            core: core_of(&devices),
            gang: Gang::new(Interconnect::Native),
            board: Board::default(),
            devices,
            guest: GuestId(guest_name()),
            phase: None,
            absent_since: None,
            rebuild: None,
            refused: None,
            stuck: false,
            overdue: Overdue::new(),
            lost: HashSet::new(),
            volumes: Volumes::default(),
            watch: Watch::new(),
            record: Record::default(),
        };
        stage.core.host_session();
        stage.carry_out(Vec::new());
        stage
    }

    /// Whether any process has joined.
    pub fn has_ranks(&self) -> bool {
        self.gang.ranks().next().is_some()
    }

    /// Looks at the processes below the launcher, and tells the user what cannot be moved.
    pub fn look(&mut self, launcher: u32, now: Instant) {
        let (_, _, transports) = self.core.current();
        let needs_hca = |name: &str| {
            ["rc", "ud", "dc", "ib", "all"]
                .iter()
                .any(|hca| name.starts_with(hca))
        };
        let tls = transports.tls.as_deref();
        let without_hca = tls.is_some_and(|tls| !tls.split(',').any(needs_hca));
        let ranks = self.core.rank_status();
        for finding in self.watch.look(launcher, &ranks, without_hca, now) {
            eprintln!("symvirt-guest: {finding}");
        }
    }

    /// Their process ids.
    pub fn rank_pids(&self) -> BTreeSet<u32> {
        self.core.rank_pids()
    }

    /// Whether a switch is under way.
    pub fn in_switch(&self) -> bool {
        self.gang.phase().is_some()
    }

    /// What decides on the next switch.
    pub fn standing(&self) -> Standing {
        Standing {
            is_ready: self.has_ranks() && !self.in_switch(),
            done: self.record.done(),
        }
    }

    /// Whether a rank stands where no abort helps.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// When it wants to be told that time has passed, whatever the patience.
    pub fn core_deadline(&self) -> Option<Instant> {
        let absence = self.absent_since.map(|since| since + ABSENCE);
        let deadlines = [self.core.deadline(), self.overdue.deadline(), absence];
        deadlines.into_iter().flatten().min()
    }

    /// When the patience with the present phase ends.
    pub fn deadline(&self, patience: Duration) -> Option<Instant> {
        self.phase.map(|(_, since)| since + patience)
    }

    /// Begins a switch.
    pub fn switch(&mut self, item: &Item, order: SwitchOrder) -> anyhow::Result<()> {
        let epoch = self.gang.next_epoch();
        info!(%epoch, to = item.name, ?order, "switch");
        self.record.begin(&item.name, order, self.volumes);
        self.rebuild = Some(item.interconnect.clone());
        let effects = self.gang.switch(epoch, item.interconnect.clone(), order)?;
        self.carry_out(effects);
        Ok(())
    }

    /// Slows the ranks down for a while.
    pub fn slow_down(&mut self, percent: u8) {
        if percent > 0 {
            let effects = self.gang.slow_down(percent, SLOW);
            self.carry_out(effects);
        }
    }

    /// Gives up the switch under way, unless it is past the point where that is possible.
    pub fn cancel(&mut self) {
        match self.gang.abort() {
            Ok(effects) => self.carry_out(effects),
            Err(refusal) => info!(%refusal, "not cancelled"),
        }
    }

    /// The coordinator dies, and another one knows what the agent remembers.
    pub fn forget(&mut self) {
        info!(phase = ?self.gang.phase(), "the coordinator forgets");
        self.record.forgotten += u64::from(self.in_switch());
        self.gang = Gang::resume(Epoch(0), Interconnect::Native);
        self.core.host_session();
        self.carry_out(Vec::new());
        match self.gang.recover(std::slice::from_ref(&self.guest)) {
            Ok(effects) => self.carry_out(effects),
            Err(unsettled) => warn!(%unsettled),
        }
    }

    /// The agent dies with all it knew and every connection, and its guest starts another.
    pub fn lose_agent(&mut self) {
        info!(phase = ?self.gang.phase(), "the agent dies");
        self.record.agents_lost += u64::from(self.in_switch());
        self.lost.extend(self.board.close_all());
        self.overdue = Overdue::new();
        self.core = core_of(&self.devices);
        self.core.host_session();
        self.carry_out(Vec::new());
    }

    /// A connection of a rank does something.
    pub fn hear(&mut self, event: sockets::Event) {
        match event {
            // What was under way to an agent that has died.
            sockets::Event::Said(conn, _) | sockets::Event::Closed(conn)
                if self.lost.contains(&conn) => {}
            sockets::Event::Opened(conn, outbox) => self.board.open(conn, outbox),
            sockets::Event::Said(conn, message) => {
                self.volumes.ranks.count(&message, 1);
                let joins = matches!(message, FromRank::Join(_));
                self.core.rank_said(conn, message, Instant::now());
                if joins {
                    self.watch.meet(&self.core.rank_status());
                }
            }
            sockets::Event::Closed(conn) => {
                self.board.close(conn);
                self.core.rank_closed(conn);
            }
            sockets::Event::Asked(query, reply) => {
                let mut said = answer(query, &mut self.core, &self.devices);
                if matches!(said, Answer::Reach(Reach::Unheard)) {
                    // The coordinator is in this process.
                    self.carry_out(Vec::new());
                    said = answer(query, &mut self.core, &self.devices);
                }
                self.volumes.ranks.count(&query, 1);
                self.volumes.ranks.count(&said, 1);
                if reply.send(said).is_err() {
                    tracing::debug!("who asked did not wait for the answer");
                }
            }
        }
        self.carry_out(Vec::new());
    }

    /// Time passed.
    pub fn pass_time(&mut self, now: Instant, patience: Duration) {
        self.core.tick(now);
        self.overdue.tick(&mut self.core, now);
        self.carry_out(Vec::new());
        let mut effects = Vec::new();
        if self
            .deadline(patience)
            .is_some_and(|deadline| deadline <= now)
        {
            warn!(phase = ?self.gang.phase(), waiting = %self.waiting(), "no answer");
            effects = self.gang.time_out();
            // The next deadline is the abort's.
            self.phase = None;
        } else if self
            .absent_since
            .is_some_and(|since| since + ABSENCE <= now)
        {
            effects = self.gang.give_up_absent();
        }
        self.carry_out(effects);
    }

    fn waiting(&self) -> String {
        let waiting = self.gang.waiting();
        waiting
            .iter()
            .map(|missing| missing.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Until core and coordinator have nothing to say to each other.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        loop {
            match effects.pop_front() {
                Some(Effect::Send { message, .. }) => {
                    self.volumes.guest.count(&message, 1);
                    self.core.host_said(message);
                }
                Some(Effect::Outcome(outcome)) => effects.extend(self.note(outcome)),
                None => {
                    let outputs = self.core.take_outputs();
                    if outputs.is_empty() {
                        break;
                    }
                    for output in outputs {
                        effects.extend(self.carry_out_one(output));
                    }
                }
            }
        }
        let phase = self.gang.phase().filter(|(_, phase)| *phase != Phase::Held);
        if self.phase.map(|(phase, _)| phase) != phase {
            self.phase = phase.map(|phase| (phase, Instant::now()));
        }
        self.absent_since = self.gang.absence(self.absent_since, Instant::now);
    }

    fn carry_out_one(&mut self, output: Output) -> Vec<Effect> {
        match output {
            Output::Ranks(conns, message) => {
                self.volumes.ranks.count(&message, conns.len());
                self.board.write(&conns, &message);
                Vec::new()
            }
            Output::Host(message) => {
                self.volumes.guest.count(&message, 1);
                if let FromAgent::Problem { message } = &message {
                    warn!(problem = message);
                }
                self.gang.hear(&self.guest.clone(), message)
            }
            Output::Drop(conn, reason) => {
                warn!(conn = conn.0, reason, "disconnected");
                self.board.close(conn);
                self.core.rank_closed(conn);
                Vec::new()
            }
            // Nobody here asks for that.
            Output::ReportDevices | Output::DropCache => Vec::new(),
        }
    }

    fn note(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.record.note(&outcome, self.volumes);
        match outcome {
            Outcome::Failed { epoch, reason } => {
                warn!(%epoch, %reason, "switch failed");
                self.stuck |= matches!(reason, Reason::TimedOut { .. });
                Vec::new()
            }
            Outcome::Aborted {
                epoch,
                held,
                reason,
            } => {
                info!(%epoch, %reason, "switch abandoned");
                if !held {
                    return Vec::new();
                }
                let since = *self.refused.get_or_insert_with(Instant::now);
                self.stuck |= since.elapsed() > REFUSED;
                if self.stuck {
                    Vec::new()
                } else {
                    self.open_again()
                }
            }
            Outcome::Held { .. } => self.open_again(),
            Outcome::RankDied { rank } => {
                warn!(%rank, "died");
                Vec::new()
            }
            Outcome::Opened { .. } => {
                self.refused = None;
                Vec::new()
            }
            Outcome::Voted { .. } | Outcome::Committed { .. } | Outcome::Released { .. } => {
                Vec::new()
            }
        }
    }

    /// A rehearsal holds nobody longer than it takes.
    fn open_again(&mut self) -> Vec<Effect> {
        let interconnect = self.rebuild.clone().unwrap_or(Interconnect::Native);
        self.gang.rebuild(interconnect).unwrap_or_default()
    }

    /// Says where each rank stands.
    pub fn describe_stuck(&self) {
        let phase = self
            .gang
            .phase()
            .map_or_else(String::new, |(epoch, phase)| {
                format!(" in {phase} of switch {epoch}")
            });
        eprintln!("symvirt-guest: stuck{phase}; missing: {}", self.waiting());
        for rank in self.core.rank_status() {
            let number = rank
                .mpi_rank
                .map_or_else(|| "-".to_owned(), |rank| rank.to_string());
            let stands = rank.stands.map_or_else(String::new, |at| format!("; {at}"));
            eprintln!(
                "  rank {number} pid {} ({}): last said {}, runs in epoch {}{stands}",
                rank.pid, rank.program, rank.said, rank.epoch
            );
        }
    }
}

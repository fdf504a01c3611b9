//! Drives a gang's pure state machine: one task a gang, so that events have one order.

mod hearing;
mod recovery;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use symvirt_protocol::agent::ToAgent;
use symvirt_protocol::gang::{ABSENCE, Effect, Gang, GuestId, Outcome, Phase};
use symvirt_protocol::ids::Epoch;
use symvirt_protocol::rank::SwitchOrder;
use symvirt_protocol::transport::Interconnect;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::Connector;
use super::attempt::{Answer, Attempt, Begin};
use super::channel::{Channel, Heard};
use super::handle::GangView;
use crate::config::{GangName, HostName, VmName};
use crate::operation::Target;
use crate::operation::effects::{Left, SwitchFailure};
use crate::operation::report::RankStall;

/// How long a slow-down lasts that is not repeated.
const SLOW: Duration = Duration::from_secs(3);

/// What the coordinator is asked to do.
pub(super) enum Command {
    /// The guest is one of the gang; its channel is to be opened.
    Attach { vm: VmName, home: HostName },
    /// The guest is reached elsewhere from now on.
    Move { vm: VmName, home: HostName },
    /// The guest is not of the gang any more; `lost`: its VM is gone, and its ranks with it.
    Detach { vm: VmName, lost: bool },
    /// Ask for a device report.
    Ask { vm: VmName },
    /// Let the guest's kernel forget what it can read again.
    DropCache { vm: VmName },
    /// The guests that make up the gang, for a recovery.
    Expect { vms: Vec<VmName> },
    /// Start a switch, a hold, a rebuild, or a recovery.
    Begin {
        what: Begin,
        limit: Duration,
        answer: Answer,
    },
    /// Give up what is under way, if possible.
    Abort,
    /// Let the ranks stand still for a part of the time.
    SlowDown { percent: u8 },
}

struct Guest {
    outgoing: mpsc::UnboundedSender<ToAgent>,
    home: watch::Sender<HostName>,
}

/// One gang's coordinator.
pub(super) struct Coordinator {
    pub name: GangName,
    pub connector: Arc<dyn Connector>,
    pub view: Arc<watch::Sender<GangView>>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    gang: Gang,
    guests: BTreeMap<VmName, Guest>,
    expected: Vec<GuestId>,
    attempt: Option<Attempt>,
    /// Its beginning.
    since: Instant,
    /// When to settle what an earlier coordinator began, if nobody asks for it before.
    settle_at: Option<Instant>,
    /// See [`Coordinator::note_absence`].
    absent_since: Option<Instant>,
}

impl Coordinator {
    pub fn new(
        name: GangName,
        connector: Arc<dyn Connector>,
        view: Arc<watch::Sender<GangView>>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let (epoch, target) = {
            let view = view.borrow();
            (Epoch(view.epoch), view.interconnect)
        };
        let gang = Gang::resume(epoch, interconnect(target));
        Self {
            name,
            connector,
            view,
            commands,
            gang,
            guests: BTreeMap::new(),
            expected: Vec::new(),
            attempt: None,
            since: Instant::now(),
            settle_at: Some(Instant::now() + recovery::MEETING),
            absent_since: None,
        }
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let (heard_sender, mut heard) = mpsc::channel::<Heard>(64);
        loop {
            let patience = reached(self.attempt.as_ref().map(Attempt::deadline));
            let settling = reached(self.settle_at);
            let absence = reached(self.absent_since.map(|since| since + ABSENCE));
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, &heard_sender),
                    None => return,
                },
                Some(heard) = heard.recv() => self.hear(heard),
                () = patience => self.out_of_patience(),
                () = settling => self.settle(),
                () = absence => {
                    let effects = self.gang.give_up_absent();
                    self.carry_out(effects);
                }
            }
            self.note_absence();
            self.answer_if_broken(false);
            self.publish();
        }
    }

    /// Since when the switch under way waits for ranks that their agent does not know.
    fn note_absence(&mut self) {
        self.absent_since = self.gang.absence(self.absent_since, Instant::now);
    }

    fn obey(&mut self, command: Command, heard: &mpsc::Sender<Heard>) {
        match command {
            Command::Attach { vm, home } => self.attach(vm, home, heard.clone()),
            Command::Move { vm, home } => match self.guests.get(&vm) {
                Some(guest) => {
                    guest.home.send_replace(home);
                }
                // An earlier daemon was the last to know it.
                None => self.attach(vm, home, heard.clone()),
            },
            Command::Detach { vm, lost } => {
                self.guests.remove(&vm);
                self.view.send_modify(|view| {
                    view.guests.remove(&vm);
                });
                if lost {
                    let effects = self.gang.lose_guest(&GuestId(vm.to_string()));
                    self.carry_out(effects);
                }
            }
            Command::Ask { vm } => {
                // A report that was under way when this was asked is an old one.
                self.view.send_modify(|view| {
                    if let Some(guest) = view.guests.get_mut(&vm) {
                        guest.devices = None;
                    }
                });
                self.send(&vm, ToAgent::ReportDevices);
            }
            Command::DropCache { vm } => self.send(&vm, ToAgent::DropCache),
            Command::Expect { vms } => {
                self.expected = vms.iter().map(|vm| GuestId(vm.to_string())).collect();
            }
            Command::Begin {
                what,
                limit,
                answer,
            } => {
                let attempt = Attempt::new(what, self.gang.epoch(), limit, answer);
                if self.attempt.is_some() {
                    let busy = "another switch of the gang is under way".into();
                    attempt.finish(Some(SwitchFailure::Refused(busy)));
                } else {
                    self.attempt = Some(attempt);
                    self.start(what);
                }
            }
            Command::Abort => self.abort(),
            Command::SlowDown { percent } => {
                let effects = self.gang.slow_down(percent, SLOW);
                self.carry_out(effects);
            }
        }
    }

    fn abort(&mut self) {
        if self.attempt.as_ref().is_some_and(Attempt::is_pausing) {
            return self.answer(Some(SwitchFailure::Aborted("cancelled".into())));
        }
        match self.gang.abort() {
            Ok(effects) => self.carry_out(effects),
            Err(refusal) => info!(gang = %self.name, %refusal, "not aborted"),
        }
    }

    fn out_of_patience(&mut self) {
        match &mut self.attempt {
            None => {}
            Some(attempt) if attempt.is_pausing() => {
                attempt.again();
                let begin = attempt.begin;
                self.start(begin);
            }
            Some(attempt) if attempt.broken.is_some() => self.answer_if_broken(true),
            Some(attempt) => {
                attempt.extend();
                let effects = self.gang.time_out();
                self.carry_out(effects);
            }
        }
    }

    fn attach(&mut self, vm: VmName, home: HostName, heard: mpsc::Sender<Heard>) {
        if self.guests.contains_key(&vm) {
            return;
        }
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let (home, at) = watch::channel(home);
        let channel = Channel {
            vm: vm.clone(),
            connector: self.connector.clone(),
            home: at,
            outgoing: to_send,
            heard,
        };
        match session() {
            Ok(session) => {
                tokio::spawn(channel.run(session));
            }
            Err(error) => {
                warn!(%vm, %error, "no random number for the guest channel");
                return;
            }
        }
        self.view.send_modify(|view| {
            view.guests.entry(vm.clone()).or_default();
        });
        self.guests.insert(vm, Guest { outgoing, home });
    }

    fn start(&mut self, begin: Begin) {
        let epoch = self.gang.next_epoch();
        let held = matches!(self.gang.phase(), Some((_, Phase::Held)));
        let begun = match begin {
            // Left so by an operation that could not do better: whatever it is to be on, it is
            // given that, and what is to stand still stands still.
            Begin::Switch(to) if held => self.gang.rebuild(interconnect(to)),
            Begin::Hold if held => return self.answer(None),
            Begin::Switch(to) => {
                let order = SwitchOrder::MakeBeforeBreak;
                self.gang.switch(epoch, interconnect(to), order)
            }
            Begin::Hold => {
                self.view.send_modify(|view| view.died_held = None);
                let stays = self.gang.interconnect().clone();
                self.gang.switch(epoch, stays, SwitchOrder::BreakBeforeMake)
            }
            Begin::Rebuild(to) => self.gang.rebuild(interconnect(to)),
            Begin::Recover => return self.recover(),
        };
        match begun {
            Ok(effects) => {
                info!(gang = %self.name, epoch = epoch.0, ?begin, "switch begins");
                self.carry_out(effects);
            }
            Err(refusal) => self.answer(Some(SwitchFailure::Refused(refusal.to_string()))),
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { guest, message } => {
                    if let Ok(vm) = guest.0.parse() {
                        self.send(&vm, message);
                    }
                }
                Effect::Outcome(outcome) => self.outcome(outcome),
            }
        }
    }

    fn send(&self, vm: &VmName, message: ToAgent) {
        let sent = self
            .guests
            .get(vm)
            .map(|guest| guest.outgoing.send(message));
        if !matches!(sent, Some(Ok(()))) {
            debug!(%vm, "no channel for a message");
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        debug!(gang = %self.name, ?outcome, "switch");
        match outcome {
            Outcome::Voted { .. } => {}
            Outcome::Committed { stalls, .. } => self.stalls(stalls),
            Outcome::Released { .. } | Outcome::Held { .. } => self.answer(None),
            Outcome::Opened { stalls, .. } => {
                self.stalls(stalls);
                self.answer(None);
            }
            Outcome::Aborted { reason, .. } if self.is_recovering() => {
                info!(gang = %self.name, %reason, "an earlier coordinator's switch is undone");
                self.answer(None);
            }
            Outcome::Aborted { held, reason, .. } => {
                let attempt = self.attempt.as_mut();
                let retry = attempt.is_some_and(|a| a.pause_after(&reason, held));
                if retry {
                    info!(gang = %self.name, %reason, "a switch came to nothing; once more");
                } else {
                    self.answer(Some(SwitchFailure::Aborted(reason.to_string())));
                }
            }
            Outcome::Failed { reason, .. } => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.broken = Some(reason.to_string());
                    attempt.extend();
                }
            }
            Outcome::RankDied { rank } => {
                info!(gang = %self.name, %rank, "rank died");
                if matches!(self.gang.phase(), Some((_, Phase::Held))) {
                    self.view.send_modify(|view| {
                        view.died_held.get_or_insert_with(|| rank.to_string());
                    });
                }
            }
        }
    }

    fn stalls(&mut self, stalls: Vec<symvirt_protocol::gang::RankStall>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.stalls = stalls
                .into_iter()
                .map(|stall| RankStall {
                    rank: stall.rank.to_string(),
                    stall: stall.stall,
                })
                .collect();
        }
    }

    /// What is broken is answered when those who are left have brought the round to its end, or
    /// when there is no more time for that: only then it is known what they are on.
    fn answer_if_broken(&mut self, now: bool) {
        let Some(Attempt {
            broken: Some(reason),
            before,
            ..
        }) = &self.attempt
        else {
            return;
        };
        let left = match self.gang.phase() {
            None if self.gang.epoch() == *before => Left::Before,
            None => Left::After,
            Some((_, Phase::Held)) => Left::Held,
            Some(_) if now => Left::Unknown,
            Some(_) => return,
        };
        let mut reason = reason.clone();
        let silent = self.view.borrow().silent();
        if left == Left::Unknown && !silent.is_empty() {
            let silent: Vec<_> = silent.iter().map(VmName::as_str).collect();
            reason.push_str(&format!(
                "; nothing is heard of the agent in {}: start `symvirt-guest agent` there again",
                silent.join(", ")
            ));
        }
        self.answer(Some(SwitchFailure::Broken { reason, left }));
    }

    fn answer(&mut self, failure: Option<SwitchFailure>) {
        if let Some(attempt) = self.attempt.take() {
            attempt.finish(failure);
        }
    }

    fn publish(&self) {
        let ranks: Vec<_> = self.gang.ranks().map(|rank| rank.to_string()).collect();
        let epoch = self.gang.epoch().0;
        let target = target(self.gang.interconnect());
        let held = matches!(self.gang.phase(), Some((_, Phase::Held)));
        self.view.send_if_modified(|view| {
            let known = (&view.ranks, view.epoch, view.interconnect, view.held);
            let changed = known != (&ranks, epoch, target, held);
            if changed {
                view.held = held;
                view.ranks = ranks;
                view.epoch = epoch;
                view.interconnect = target;
            }
            changed
        });
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn interconnect(target: Target) -> Interconnect {
    match target {
        Target::Native => Interconnect::Native,
        Target::Fallback => Interconnect::Fallback,
    }
}

fn target(interconnect: &Interconnect) -> Target {
    match interconnect {
        Interconnect::Native | Interconnect::Explicit(_) => Target::Native,
        Interconnect::Fallback => Target::Fallback,
    }
}

fn session() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

//! The core's side towards the coordinator: its messages on their way to ranks, its comings and
//! goings.

use std::time::Instant;

use symvirt_protocol::agent::{FromAgent, Recipient, ToAgent};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::{FromRank, Join, SwitchOrder, ToRank, Welcome};

use super::{ConnId, Core, Host, Output, Progress, Round};

impl Core {
    /// The coordinator is there, and knows nothing of what was said before.
    pub fn host_session(&mut self) {
        self.host = Host::Present;
        self.gathered.clear();
        self.flush_at = None;
        if let Some(Round {
            epoch,
            progress: Progress::Undoable,
            ..
        }) = self.round
        {
            self.round = None;
            self.tell_members(&ToRank::Abort { epoch });
        }
        let members = self.ranks.values().filter(|rank| rank.member);
        let ranks = members
            .map(|rank| Join {
                epoch: rank.epoch,
                ..rank.join.clone()
            })
            .collect();
        let waiting = self.ranks.values().filter(|rank| !rank.member);
        let waiting = waiting.map(|rank| (rank.join.process, FromRank::Join(rank.join.clone())));
        let departed = self.departed.iter();
        let left =
            departed.map(|(process, _, sent)| (*process, FromRank::Leave { sent: sent.clone() }));
        let rest: Vec<(ProcId, FromRank)> = left.chain(waiting).collect();
        self.outputs.push(Output::Host(FromAgent::Hello {
            guest: self.guest.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ranks,
        }));
        if !rest.is_empty() {
            self.outputs.push(Output::Host(FromAgent::Ranks(rest)));
        }
    }

    /// The channel to the coordinator was closed, or is open again; both sides remember.
    pub fn host_present(&mut self, present: bool, now: Instant) {
        let host = match (self.host, present) {
            (Host::Unknown, _) => Host::Unknown,
            (Host::Away | Host::Present, true) => Host::Present,
            (Host::Away | Host::Present, false) => Host::Away,
        };
        if self.host != host {
            self.host = host;
            for rank in self.ranks.values_mut().filter(|rank| !rank.member) {
                rank.since = now;
            }
        }
    }

    /// The coordinator is gone with its memory; ranks that wait for it are let go on.
    pub fn host_forgotten(&mut self) {
        self.host = Host::Unknown;
        self.gathered.clear();
        self.flush_at = None;
        let waiting = self.ranks.iter().filter(|(_, rank)| !rank.member);
        for process in waiting.map(|(process, _)| *process).collect::<Vec<_>>() {
            self.welcome_alone(process);
        }
    }

    /// The coordinator says something.
    pub fn host_said(&mut self, message: ToAgent) {
        match message {
            ToAgent::Ranks(messages) => {
                for (recipient, message) in messages {
                    self.deliver(recipient, message);
                }
            }
            ToAgent::Prepare {
                epoch,
                interconnect,
            } => {
                let transports = (self.resolve)(&interconnect);
                self.round_reaches(epoch, Progress::Undoable);
                self.tell_members(&ToRank::Prepare { epoch, transports });
            }
            ToAgent::Current {
                epoch,
                interconnect,
            } => {
                if let Some(round) = self.round.take_if(|round| round.epoch == epoch) {
                    self.table = round.table;
                }
                self.epoch = epoch;
                self.interconnect = interconnect;
                self.departed.retain(|(_, of, _)| *of >= epoch);
            }
            ToAgent::ReportDevices => self.outputs.push(Output::ReportDevices),
        }
    }

    fn round_reaches(&mut self, epoch: Epoch, progress: Progress) {
        match &mut self.round {
            Some(round) if round.epoch == epoch => round.progress = progress,
            _ => {
                let order = SwitchOrder::MakeBeforeBreak;
                self.round = Some(Round {
                    epoch,
                    order,
                    progress,
                    table: Vec::new(),
                });
            }
        }
    }

    fn deliver(&mut self, recipient: Recipient, message: ToRank) {
        match &message {
            ToRank::Commit { epoch, order } => {
                self.round_reaches(*epoch, Progress::Undoable);
                if let Some(round) = &mut self.round {
                    round.order = *order;
                }
            }
            ToRank::Peers { epoch, table, .. } => {
                self.round_reaches(*epoch, Progress::Undoable);
                if let Some(round) = &mut self.round {
                    round.table.clone_from(table);
                }
            }
            ToRank::Expect {
                epoch, weigh: true, ..
            } => self.round_reaches(*epoch, Progress::Undoable),
            ToRank::Expect { epoch, .. } | ToRank::Proceed { epoch } | ToRank::Open { epoch } => {
                self.round_reaches(*epoch, Progress::Decided);
            }
            ToRank::Abort { .. } => self.round = None,
            ToRank::Welcome(_)
            | ToRank::Prepare { .. }
            | ToRank::Release { .. }
            | ToRank::Matched { .. } => {}
        }
        match (recipient, message) {
            (Recipient::One(process), ToRank::Welcome(welcome)) => {
                let transports = (self.resolve)(&self.interconnect);
                self.table.clone_from(&welcome.table);
                self.welcome(
                    process,
                    Welcome {
                        transports,
                        ..welcome
                    },
                );
            }
            (Recipient::One(process), message) => {
                if let Some(rank) = self.ranks.get(&process) {
                    self.outputs.push(Output::Ranks(vec![rank.conn], message));
                }
            }
            (Recipient::All, message) => self.tell_members(&message),
        }
    }

    fn tell_members(&mut self, message: &ToRank) {
        if let Some(epoch) = message.epoch() {
            self.requests += 1;
            self.asked_in = epoch;
        }
        self.owing.clear();
        for (process, rank) in self.ranks.iter_mut().filter(|(_, rank)| rank.member) {
            rank.stands = None;
            self.owing.insert(*process);
        }
        let members = self.ranks.values().filter(|rank| rank.member);
        let conns: Vec<ConnId> = members.map(|rank| rank.conn).collect();
        if !conns.is_empty() {
            self.outputs.push(Output::Ranks(conns, message.clone()));
        }
    }
}

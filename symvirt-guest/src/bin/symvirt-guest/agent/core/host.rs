//! The core's side towards the coordinator: its messages on their way to ranks, its comings and
//! goings.

use std::collections::BTreeMap;
use std::time::Instant;

use symvirt_protocol::agent::{FromAgent, Recipient, ToAgent};
use symvirt_protocol::ids::ProcId;
use symvirt_protocol::rank::{FromRank, Join, ToRank, Welcome};
use symvirt_protocol::share::share;

use super::directory::Directory;
use super::{Core, Host, Output, Rank};

fn members(ranks: &BTreeMap<ProcId, Rank>) -> impl Iterator<Item = ProcId> {
    let members = ranks.iter().filter(|(_, rank)| rank.member);
    members.map(|(process, _)| *process)
}

impl Core {
    /// The coordinator is there, and knows nothing of what was said before.
    pub fn host_session(&mut self) {
        self.host = Host::Present;
        self.gathered.clear();
        self.flush_at = None;
        self.directory.ask_again();
        if let Some((_, directory)) = &mut self.next_directory {
            directory.ask_again();
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
        let waiting: Vec<(ProcId, FromRank)> = waiting.collect();
        self.outputs.push(Output::Host(FromAgent::Hello {
            guest: self.guest.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ranks,
            memory: Box::new(self.memory.clone()),
        }));
        let again: Vec<_> = waiting
            .into_iter()
            .chain(self.matches.by_receiver())
            .collect();
        if !again.is_empty() {
            self.outputs.push(Output::Host(FromAgent::Ranks(again)));
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

    /// The coordinator is gone with its memory; ranks that wait for it are let go on, unless they
    /// would begin on transports that are being left.
    pub fn host_forgotten(&mut self) {
        self.host = Host::Unknown;
        self.gathered.clear();
        self.flush_at = None;
        if self.memory.is_pending() {
            return;
        }
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
                let members = members(&self.ranks);
                self.memory.prepare(epoch, interconnect, members);
                self.tell_members(&ToRank::Prepare { epoch, transports });
            }
            ToAgent::Current {
                epoch,
                interconnect,
            } => {
                let next = self.next_directory.take_if(|(of, _)| *of == epoch);
                if epoch != self.told().0 {
                    self.directory = Directory::default();
                }
                if let Some((_, directory)) = next {
                    self.directory = directory;
                }
                self.memory.current(epoch, interconnect);
            }
            ToAgent::Found {
                epoch,
                blobs,
                gone,
                unknown,
                later,
            } => self.found(epoch, &blobs, &gone, &unknown, &later),
            ToAgent::ReportDevices => self.outputs.push(Output::ReportDevices),
            ToAgent::DropCache => self.outputs.push(Output::DropCache),
        }
    }

    fn deliver(&mut self, recipient: Recipient, message: ToRank) {
        if let ToRank::Peers { epoch, table, .. } = &message {
            let mut directory = Directory::default();
            directory.insert(table);
            self.next_directory = Some((*epoch, directory));
        }
        match (recipient, message) {
            (Recipient::One(process), ToRank::Welcome(welcome)) => {
                let (_, interconnect) = self.told();
                let transports = (self.resolve)(&interconnect);
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
            (Recipient::All, message) => {
                self.memory.told(&message, members(&self.ranks));
                self.tell_members(&message);
            }
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
        let mut same = Vec::new();
        for (process, rank) in self.ranks.iter().filter(|(_, rank)| rank.member) {
            match share(message, *process, &rank.wants) {
                Some(share) => self.outputs.push(Output::Ranks(vec![rank.conn], share)),
                None => same.push(rank.conn),
            }
        }
        if !same.is_empty() {
            self.outputs.push(Output::Ranks(same, message.clone()));
        }
    }
}

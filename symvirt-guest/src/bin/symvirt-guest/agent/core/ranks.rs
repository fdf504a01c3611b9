//! The core's side towards ranks: joins, departures, and answers on their way to the coordinator.

use std::collections::BTreeSet;
use std::time::Instant;

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::rank::{FromRank, Join, SwitchOrder, ToRank, Welcome};
use symvirt_protocol::share::Wants;

use super::{ConnId, Core, GATHER, Host, Output, Rank, Spool};

impl Rank {
    fn changes_over(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.epoch = epoch;
            // From here on they are in the memory of the switch.
            self.join.blobs.clear();
        }
    }
}

impl Core {
    /// A rank says something. Its first message must be `Join`.
    pub fn rank_said(&mut self, conn: ConnId, message: FromRank, now: Instant) {
        match (message, self.by_conn.get(&conn).copied()) {
            (FromRank::Join(join), None) => self.join(conn, join, now),
            (FromRank::Join(join), Some(process)) if join.process == process => {
                self.join(conn, join, now);
            }
            (FromRank::Join(join), Some(process)) => {
                self.refuse(
                    conn,
                    format!("process {process} joins again as {}", join.process),
                );
            }
            (_, None) => self.refuse(conn, "first message is not Join".to_owned()),
            (message, Some(process)) => self.relay(process, message, now),
        }
    }

    fn refuse(&mut self, conn: ConnId, reason: String) {
        self.outputs.push(Output::Drop(conn, reason));
    }

    fn join(&mut self, conn: ConnId, join: Join, now: Instant) {
        let process = join.process;
        if let Some(earlier) = self.ranks.get(&process) {
            if earlier.join.pid != join.pid {
                let holder = earlier.join.pid;
                return self.refuse(conn, format!("process {process} is pid {holder} already"));
            }
            if earlier.conn != conn {
                let earlier = earlier.conn;
                self.by_conn.remove(&earlier);
                self.refuse(earlier, format!("process {process} has connected again"));
            }
        }
        let epoch = join.epoch;
        let rank = Rank {
            conn,
            join: join.clone(),
            member: false,
            epoch,
            since: now,
            said: "Join",
            spool: Spool::default(),
            stands: None,
            wants: Wants::NOTHING,
        };
        self.ranks.insert(process, rank);
        self.by_conn.insert(conn, process);
        match self.host {
            Host::Unknown if self.memory.is_pending() => {}
            Host::Unknown => self.welcome_alone(process),
            Host::Away | Host::Present => {
                self.flush();
                let join = vec![(process, FromRank::Join(join))];
                self.outputs.push(Output::Host(FromAgent::Ranks(join)));
            }
        }
    }

    /// Nobody coordinates: the rank starts on what is current, as far as that is known.
    pub(super) fn welcome_alone(&mut self, process: ProcId) {
        let (epoch, interconnect) = self.told();
        let transports = (self.resolve)(&interconnect);
        let welcome = Welcome { epoch, transports };
        self.welcome(process, welcome);
    }

    pub(super) fn welcome(&mut self, process: ProcId, welcome: Welcome) {
        if let Some(rank) = self.ranks.get_mut(&process) {
            rank.member = true;
            rank.epoch = welcome.epoch;
            self.outputs
                .push(Output::Ranks(vec![rank.conn], ToRank::Welcome(welcome)));
        }
    }

    fn relay(&mut self, process: ProcId, message: FromRank, now: Instant) {
        let Some(rank) = self.ranks.get_mut(&process) else {
            return;
        };
        match &message {
            FromRank::Stands { at, .. } => rank.stands = Some(at.clone()),
            FromRank::Matched { syncs } => self.matches.remember(syncs),
            _ => {
                self.owing.remove(&process);
                rank.stands = None;
            }
        }
        rank.said = name_of(&message);
        self.memory.said(process, &message);
        let order = self.memory.round.as_ref().map(|round| round.order);
        let urgent = match &message {
            FromRank::Drained { epoch, stall } => {
                rank.spool = Spool {
                    bytes: stall.spool_bytes,
                    peak: stall.spool_peak,
                };
                if order == Some(SwitchOrder::MakeBeforeBreak) {
                    rank.changes_over(*epoch);
                }
                false
            }
            FromRank::Opened { epoch, .. } => {
                rank.changes_over(*epoch);
                false
            }
            FromRank::Published { hellos, opens, .. } => {
                rank.wants = Wants::new(hellos, opens);
                false
            }
            FromRank::Leave { sent } => {
                // The connection stays: what it still says of a switch means nothing, but the
                // process may join again.
                self.memory.leaves(process, rank.epoch, sent.clone());
                self.ranks.remove(&process);
                true
            }
            FromRank::Join(_) | FromRank::Veto { .. } => true,
            FromRank::Ready { .. }
            | FromRank::Counters { .. }
            | FromRank::Weighed { .. }
            | FromRank::Matched { .. }
            | FromRank::Stands { .. }
            | FromRank::Released { .. }
            | FromRank::Aborted { .. } => false,
        };
        if self.host == Host::Unknown {
            return;
        }
        self.gathered.push((process, message));
        self.flush_at.get_or_insert(now + GATHER);
        if urgent || self.everyone_spoke() {
            self.flush();
        }
    }

    fn everyone_spoke(&self) -> bool {
        let members = self.ranks.values().filter(|rank| rank.member).count();
        self.gathered.len() >= members && {
            let speakers: BTreeSet<ProcId> = self.gathered.iter().map(|(p, _)| *p).collect();
            speakers.len() >= members
        }
    }

    pub(super) fn flush(&mut self) {
        self.flush_at = None;
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.outputs.push(Output::Host(FromAgent::Ranks(gathered)));
        }
    }

    /// A rank's connection has ended. Without a `Leave` before it, the process died.
    pub fn rank_closed(&mut self, conn: ConnId) {
        let Some(process) = self.by_conn.remove(&conn) else {
            return;
        };
        let Some(rank) = self.ranks.remove(&process) else {
            return;
        };
        self.memory.dies(&rank.join);
        if self.host != Host::Unknown {
            self.flush();
            let pid = rank.join.pid;
            self.outputs
                .push(Output::Host(FromAgent::Gone { process, pid }));
        }
    }
}

fn name_of(message: &FromRank) -> &'static str {
    match message {
        FromRank::Join(_) => "Join",
        FromRank::Leave { .. } => "Leave",
        FromRank::Published { .. } => "Published",
        FromRank::Ready { .. } => "Ready",
        FromRank::Veto { .. } => "Veto",
        FromRank::Counters { .. } => "Counters",
        FromRank::Weighed { .. } => "Weighed",
        FromRank::Matched { .. } => "Matched",
        FromRank::Stands { .. } => "Stands",
        FromRank::Drained { .. } => "Drained",
        FromRank::Released { .. } => "Released",
        FromRank::Opened { .. } => "Opened",
        FromRank::Aborted { .. } => "Aborted",
    }
}

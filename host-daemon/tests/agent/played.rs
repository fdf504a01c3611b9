//! One agent, as a test plays it: what it says, and what its ranks do.

use std::sync::Arc;

use symvirt_protocol::agent::{DeviceReport, FromAgent, ToAgent};
use symvirt_protocol::ids::Epoch;
use symvirt_protocol::link::{Link, Received};
use symvirt_protocol::memory::Memory;
use symvirt_protocol::rank::{FromRank, Join, Load, Stall, SwitchOrder, ToRank};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

/// How the ranks behave.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Manner {
    Willing,
    Vetoing,
    Deaf,
    /// Killed at the moment that its gate is to close.
    Dying,
    /// Killed when it is told what to expect: the others change over.
    DyingLate,
    /// It has not answered when its coordinator dies: the first message of this kind.
    Slow(Slow),
}

/// What is not answered the first time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Slow {
    Prepare,
    Peers,
    Commit,
    Expect,
    Release,
    Open,
}

/// An agent.
pub(super) struct Agent {
    pub(super) link: Link<FromAgent, ToAgent>,
    pub(super) link_number: u64,
    pub(super) ranks: Vec<Join>,
    pub(super) manner: Manner,
    pub(super) order: SwitchOrder,
    pub(super) memory: Memory,
    pub(super) reached: Arc<Notify>,
    /// Its ranks find it later than its coordinator does.
    pub(super) restarted: bool,
    /// The epoch that its ranks are in, which it has not said.
    pub(super) unsaid: Option<Epoch>,
}

impl Agent {
    pub(super) fn new(ranks: Vec<Join>, manner: Manner) -> Self {
        let session = ranks.iter().map(|rank| rank.process.0).sum::<u64>() + 1;
        // Another life of an agent has another session.
        let session = session * 1000 + ranks.iter().map(|rank| rank.epoch.0).sum::<u64>();
        Self {
            link: Link::new(session),
            link_number: session,
            ranks,
            manner,
            order: SwitchOrder::MakeBeforeBreak,
            memory: Memory::default(),
            reached: Arc::default(),
            restarted: false,
            unsaid: None,
        }
    }

    pub(super) async fn run(mut self, mut stream: DuplexStream, stop: Arc<Notify>) -> Self {
        self.link.reconnected();
        let mut buffer = vec![0; 4096];
        loop {
            let output = self.link.take_output();
            if stream.write_all(&output).await.is_err() {
                return self;
            }
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => {
                        for received in self.link.receive(&buffer[..n]) {
                            self.hear(received);
                        }
                    }
                    _ => return self,
                },
                () = stop.notified() => return self,
            }
        }
    }

    fn hear(&mut self, received: Received<ToAgent>) {
        match received {
            Received::Session { .. } => {
                let (ranks, late) = match self.restarted {
                    true => (vec![], self.ranks.clone()),
                    false => (self.ranks.clone(), vec![]),
                };
                let hello = FromAgent::Hello {
                    guest: "g".into(),
                    agent_version: "1".into(),
                    ranks,
                    memory: Box::new(self.memory.clone()),
                };
                self.link.send(&hello).unwrap();
                let join = |rank: Join| (rank.process, FromRank::Join(rank));
                let joins = late.into_iter().map(join).collect();
                self.link.send(&FromAgent::Ranks(joins)).unwrap();
            }
            Received::Message(ToAgent::ReportDevices) => {
                self.link
                    .send(&FromAgent::Devices(DeviceReport::default()))
                    .unwrap();
            }
            Received::Message(ToAgent::DropCache) => {
                self.link
                    .send(&FromAgent::CacheDropped { bytes: 4096 })
                    .unwrap();
            }
            // Its ranks ask nothing.
            Received::Message(ToAgent::Found { .. }) => {}
            Received::Message(ToAgent::Current {
                epoch,
                interconnect,
            }) => self.memory.current(epoch, interconnect),
            Received::Message(ToAgent::Prepare {
                epoch,
                interconnect,
            }) => {
                let members = self.ranks.iter().map(|rank| rank.process);
                self.memory.prepare(epoch, interconnect, members);
                if self.is_slow(Some(Slow::Prepare)) {
                    return;
                }
                let answer = match self.manner {
                    Manner::Vetoing => FromRank::Veto {
                        epoch,
                        reason: "no memory".into(),
                    },
                    _ => FromRank::Published {
                        epoch,
                        blobs: vec![],
                        hellos: vec![],
                        opens: vec![],
                    },
                };
                self.answer(&answer);
            }
            Received::Message(ToAgent::Ranks(messages)) => {
                for (_, message) in messages {
                    let members = self.ranks.iter().map(|rank| rank.process);
                    self.memory.told(&message, members);
                    self.obey(&message);
                }
            }
            Received::Resumed | Received::Malformed(_) | Received::Version { .. } => {}
        }
    }

    pub(super) fn ranks_die(&mut self) {
        for rank in std::mem::take(&mut self.ranks) {
            let (process, pid) = (rank.process, rank.pid);
            let gone = FromAgent::Gone { process, pid };
            self.link.send(&gone).unwrap();
        }
    }

    fn answer(&mut self, answer: &FromRank) {
        if self.manner == Manner::Deaf {
            return;
        }
        for rank in &mut self.ranks {
            self.memory.said(rank.process, answer);
            match answer {
                FromRank::Drained { epoch, .. } if self.order == SwitchOrder::MakeBeforeBreak => {
                    rank.epoch = *epoch;
                }
                FromRank::Opened { epoch, .. } => rank.epoch = *epoch,
                _ => {}
            }
        }
        let answers = self
            .ranks
            .iter()
            .map(|rank| (rank.process, answer.clone()))
            .collect();
        self.link.send(&FromAgent::Ranks(answers)).unwrap();
    }

    fn is_slow(&mut self, now: Option<Slow>) -> bool {
        let slow = now.is_some_and(|now| self.manner == Manner::Slow(now));
        if slow {
            self.manner = Manner::Willing;
            self.reached.notify_one();
        }
        slow
    }

    fn obey(&mut self, message: &ToRank) {
        let stall = Stall {
            total_us: 100,
            ..Stall::default()
        };
        let now = match message {
            ToRank::Peers { .. } => Some(Slow::Peers),
            ToRank::Commit { .. } => Some(Slow::Commit),
            ToRank::Expect { .. } => Some(Slow::Expect),
            ToRank::Release { .. } => Some(Slow::Release),
            ToRank::Open { .. } => Some(Slow::Open),
            _ => None,
        };
        if self.is_slow(now) {
            if let ToRank::Commit { order, .. } = message {
                self.order = *order;
            }
            // The ranks have done it, and their answer gets lost.
            match message {
                ToRank::Expect { epoch, .. } if self.order == SwitchOrder::MakeBeforeBreak => {
                    self.unsaid = Some(*epoch);
                }
                ToRank::Open { epoch } => self.unsaid = Some(*epoch),
                _ => {}
            }
            return;
        }
        let answer = match message {
            ToRank::Peers { epoch, .. } => FromRank::Ready { epoch: *epoch },
            ToRank::Commit { .. } if self.manner == Manner::Dying => {
                self.ranks_die();
                return;
            }
            ToRank::Expect { .. } if self.manner == Manner::DyingLate => {
                self.ranks_die();
                return;
            }
            ToRank::Commit { epoch, order } => {
                self.order = *order;
                FromRank::Counters {
                    epoch: *epoch,
                    sent: vec![],
                    syncs: vec![],
                    late: vec![],
                    atomics: false,
                    load: Load {
                        room: u64::MAX,
                        ..Load::default()
                    },
                }
            }
            ToRank::Expect {
                epoch, weigh: true, ..
            } => FromRank::Weighed { epoch: *epoch },
            ToRank::Expect { epoch, .. } | ToRank::Proceed { epoch } => FromRank::Drained {
                epoch: *epoch,
                stall,
            },
            ToRank::Release { epoch } => FromRank::Released {
                epoch: *epoch,
                release_us: 5,
                stall: None,
            },
            ToRank::Open { epoch } => FromRank::Opened {
                epoch: *epoch,
                stall,
            },
            ToRank::Abort { epoch } => FromRank::Aborted { epoch: *epoch },
            ToRank::Welcome(_)
            | ToRank::Prepare { .. }
            | ToRank::Matched { .. }
            | ToRank::SlowDown { .. } => return,
        };
        self.answer(&answer);
    }
}

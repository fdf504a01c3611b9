//! Agents that a test plays, at the other end of byte streams in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::guest::{Connector, Stream};
use symvirt_protocol::agent::{DeviceReport, FromAgent, ToAgent};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::link::{Link, Received};
use symvirt_protocol::memory::Memory;
use symvirt_protocol::rank::{FromRank, Join, Load, Stall, SwitchOrder, ToRank};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

type Ends = BTreeMap<(String, String), DuplexStream>;

/// The agents' side of all channels.
#[derive(Clone, Default)]
pub struct Agents {
    ends: Arc<Mutex<Ends>>,
    opened: Arc<Notify>,
}

/// A rank of `vm`.
pub fn join(vm: &str) -> Join {
    Join {
        process: ProcId(vm.bytes().map(u64::from).sum()),
        pid: 7,
        program: format!("app-{vm}"),
        mpi_rank: None,
        ucx_version: "1.18.1".into(),
        epoch: Epoch(0),
        blobs: vec![],
    }
}

/// How the ranks behave.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
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

/// An agent that can be stopped, its link kept.
pub struct Played {
    stop: Arc<Notify>,
    task: JoinHandle<Agent>,
}

/// What outlives an agent.
pub struct Killed(Agent);

struct Agent {
    link: Link<FromAgent, ToAgent>,
    link_number: u64,
    ranks: Vec<Join>,
    manner: Manner,
    order: SwitchOrder,
    memory: Memory,
    reached: Arc<Notify>,
    /// Its ranks find it later than its coordinator does.
    restarted: bool,
    /// The epoch that its ranks are in, which it has not said.
    unsaid: Option<Epoch>,
}

impl Connector for Agents {
    fn connect(&self, host: HostName, vm: VmName) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let (daemon, agent) = duplex(64 << 10);
            self.ends
                .lock()
                .unwrap()
                .insert((vm.to_string(), host.to_string()), agent);
            self.opened.notify_waiters();
            Ok(Box::new(daemon) as Box<dyn Stream>)
        })
    }
}

impl Agents {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(self.clone())
    }

    /// The agent's end of a channel, which nobody serves.
    pub async fn end(&self, vm: &str, host: &str) -> DuplexStream {
        let key = (vm.to_owned(), host.to_owned());
        loop {
            let opened = self.opened.notified();
            if let Some(end) = self.ends.lock().unwrap().remove(&key) {
                return end;
            }
            // A channel that is open already is opened again when this end goes.
            tokio::select! {
                () = opened => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
            }
        }
    }

    pub async fn play(&self, vm: &str, host: &str, ranks: Vec<Join>) -> Played {
        self.start(vm, host, Agent::new(ranks, Manner::Willing))
            .await
    }

    pub async fn play_vetoing(&self, vm: &str, host: &str, ranks: Vec<Join>) -> Played {
        self.start(vm, host, Agent::new(ranks, Manner::Vetoing))
            .await
    }

    pub async fn play_dying(&self, vm: &str, host: &str, ranks: Vec<Join>) -> Played {
        self.start(vm, host, Agent::new(ranks, Manner::Dying)).await
    }

    pub async fn play_dying_late(&self, vm: &str, host: &str, ranks: Vec<Join>) -> Played {
        self.start(vm, host, Agent::new(ranks, Manner::DyingLate))
            .await
    }

    /// An agent that is silent when it hears this first; the second result tells when.
    pub async fn play_slow(
        &self,
        vm: &str,
        host: &str,
        ranks: Vec<Join>,
        slow: Slow,
    ) -> (Played, Arc<Notify>) {
        let agent = Agent::new(ranks, Manner::Slow(slow));
        let reached = agent.reached.clone();
        (self.start(vm, host, agent).await, reached)
    }

    pub async fn play_deaf(&self, vm: &str, host: &str, ranks: Vec<Join>) -> Played {
        self.start(vm, host, Agent::new(ranks, Manner::Deaf)).await
    }

    /// The agent goes on at another host's end, with all that it remembers.
    pub async fn move_to(&self, vm: &str, host: &str, played: Played) -> Played {
        played.stop.notify_one();
        let agent = played.task.await.unwrap();
        self.start(vm, host, agent).await
    }

    /// The agent is killed, with all that it remembers.
    pub async fn kill(&self, played: Played) -> Killed {
        played.stop.notify_one();
        Killed(played.task.await.unwrap())
    }

    /// Another agent is started in the guest, and the ranks find it.
    pub async fn start_again(&self, vm: &str, host: &str, Killed(mut before): Killed) -> Played {
        if let Some(epoch) = before.unsaid {
            before.ranks.iter_mut().for_each(|rank| rank.epoch = epoch);
        }
        let agent = Agent {
            order: before.order,
            restarted: true,
            link: Link::new(before.link_number + 1),
            link_number: before.link_number + 1,
            ..Agent::new(before.ranks, Manner::Willing)
        };
        self.start(vm, host, agent).await
    }

    /// The agent's ranks are killed; it says so.
    pub async fn kill_ranks(&self, vm: &str, host: &str, played: Played) -> Played {
        played.stop.notify_one();
        let mut agent = played.task.await.unwrap();
        agent.ranks_die();
        self.start(vm, host, agent).await
    }

    async fn start(&self, vm: &str, host: &str, agent: Agent) -> Played {
        let stream = self.end(vm, host).await;
        let stop = Arc::new(Notify::new());
        Played {
            stop: stop.clone(),
            task: tokio::spawn(agent.run(stream, stop)),
        }
    }

    /// Whole frames of another protocol version.
    pub async fn play_other_version(&self, vm: &str, host: &str) {
        let mut stream = self.end(vm, host).await;
        let mut frame = symvirt_protocol::frame::encode(&0u8).unwrap();
        frame[4..6].copy_from_slice(&999u16.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[4..12]);
        crc.update(&frame[16..]);
        frame[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
        stream.write_all(&frame).await.unwrap();
        self.ends
            .lock()
            .unwrap()
            .insert((vm.to_owned(), host.to_owned()), stream);
    }
}

impl Agent {
    fn new(ranks: Vec<Join>, manner: Manner) -> Self {
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

    async fn run(mut self, mut stream: DuplexStream, stop: Arc<Notify>) -> Self {
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

    fn ranks_die(&mut self) {
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

//! Guests, agents and ranks in memory. A rank answers as the library does; the schedule (which
//! queue moves next, who dies, leaves or joins when) is the test's. Every step checks the
//! conservation rules against what ranks really did, not against the gang's own books.

mod checks;
mod rank;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use symvirt_protocol::agent::{FromAgent, Recipient, ToAgent};
use symvirt_protocol::frame::length_of;
use symvirt_protocol::gang::{Effect, Gang, GuestId, Outcome};
use symvirt_protocol::ids::{Epoch, ProcId, WorkerId};
use symvirt_protocol::memory::Memory;
use symvirt_protocol::rank::{Blob, FromRank, Join, Load, ToRank, WorkerCount};
use symvirt_protocol::share::{Wants, share};
use symvirt_protocol::transport::{Interconnect, Transports};

/// Of an address of UCX: some hundred.
const ADDRESS_BYTES: usize = 150;

#[derive(Debug)]
pub struct Rank {
    pub guest: usize,
    pub welcomed: bool,
    pub alive: bool,
    pub epoch: Epoch,
    pub held: bool,
    /// Stands still with nothing left of the old transport: only `Open` ends that.
    pub decided: bool,
    /// Told that nobody opens before all have drained.
    barrier: bool,
    /// Sent in the current epoch, by receiver.
    pub sent: BTreeMap<ProcId, u64>,
    /// What its counters said when the gate closed.
    counted: BTreeMap<ProcId, u64>,
    pub veto_next: bool,
    /// What it says of its coming drain.
    pub load: Load,
    /// It finds that the drain does not fit.
    pub overflows: bool,
    /// Its program issues atomics.
    pub atomics: bool,
    /// Whom it has endpoints in use to.
    pub greets: BTreeSet<ProcId>,
    wants: Wants,
    pub heard: Vec<&'static str>,
}

impl Rank {
    /// Its gate was closed since it was welcomed.
    fn has_committed(&self) -> bool {
        let mut words = self.heard.iter().rev();
        words.find(|word| matches!(**word, "commit" | "welcome")) == Some(&"commit")
    }
}

/// Frames, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    pub frames: usize,
    pub bytes: usize,
}

impl Volume {
    fn count<T: serde::Serialize>(&mut self, message: &T) {
        self.frames += 1;
        self.bytes += length_of(message).expect("our own message");
    }
}

pub struct World {
    pub gang: Gang,
    pub guests: usize,
    pub ranks: BTreeMap<ProcId, Rank>,
    to_agent: Vec<VecDeque<ToAgent>>,
    from_agent: Vec<VecDeque<FromAgent>>,
    /// Between each agent and its ranks.
    to_ranks: Vec<VecDeque<(ProcId, ToRank)>>,
    pub memories: Vec<Memory>,
    /// What it says arrives later.
    muted: Option<usize>,
    pub outcomes: Vec<Outcome>,
    /// Sent by departed ranks: (epoch, receiver) → messages.
    departed: BTreeMap<(Epoch, ProcId), u64>,
    /// Answers each rank has sent: (process, epoch, what).
    answered: BTreeSet<(ProcId, Epoch, &'static str)>,
    next_process: u64,
    pub messages_to_guests: usize,
    /// Whether any rank was killed: what it counted may have been announced, or not.
    killed: bool,
    /// What went between coordinator and guests, both ways.
    pub guests_volume: Volume,
    /// Whom guests were told how to reach.
    pub told_guests: Vec<(usize, WorkerId)>,
    /// What went between agents and ranks, both ways.
    pub ranks_volume: Volume,
    /// Whether any agent has lost its memory: who counted what is not the world's to know then.
    restarted: bool,
}

pub fn guest_id(index: usize) -> GuestId {
    GuestId(format!("g{index}"))
}

pub fn worker(process: ProcId) -> WorkerId {
    WorkerId { process, index: 0 }
}

pub fn explicit(tls: &str) -> Interconnect {
    Interconnect::Explicit(Transports {
        tls: Some(tls.into()),
        net_devices: Some("all".into()),
    })
}

fn join(process: ProcId, epoch: Epoch) -> Join {
    Join {
        process,
        pid: 1000 + process.0 as u32,
        program: "app".into(),
        mpi_rank: Some(process.0 as u32 - 1),
        ucx_version: "1".into(),
        epoch,
        blobs: match epoch {
            Epoch(0) => Vec::new(),
            _ => vec![address(process)],
        },
    }
}

fn address(process: ProcId) -> Blob {
    Blob {
        object: worker(process),
        bytes: vec![1; ADDRESS_BYTES],
    }
}

fn counts(map: &BTreeMap<ProcId, u64>) -> Vec<WorkerCount> {
    map.iter()
        .map(|(p, n)| WorkerCount {
            worker: worker(*p),
            count: *n,
        })
        .collect()
}

impl World {
    /// Agents connected, `ranks` ranks spread over them and welcomed.
    pub fn new(guests: usize, ranks: usize) -> Self {
        let mut world = World {
            gang: Gang::new(Interconnect::Native),
            guests,
            ranks: BTreeMap::new(),
            to_agent: vec![VecDeque::new(); guests],
            from_agent: vec![VecDeque::new(); guests],
            to_ranks: vec![VecDeque::new(); guests],
            memories: vec![Memory::default(); guests],
            muted: None,
            outcomes: Vec::new(),
            departed: BTreeMap::new(),
            answered: BTreeSet::new(),
            next_process: 1,
            messages_to_guests: 0,
            killed: false,
            guests_volume: Volume::default(),
            told_guests: Vec::new(),
            ranks_volume: Volume::default(),
            restarted: false,
        };
        for guest in 0..guests {
            world.from_agent[guest].push_back(FromAgent::Hello {
                guest: format!("g{guest}"),
                agent_version: "0".into(),
                ranks: Vec::new(),
                memory: Box::default(),
            });
        }
        for rank in 0..ranks {
            world.spawn(rank % guests);
        }
        world.run();
        world
    }

    pub fn spawn(&mut self, guest: usize) -> ProcId {
        let process = ProcId(self.next_process);
        self.next_process += 1;
        self.ranks.insert(
            process,
            Rank {
                guest,
                welcomed: false,
                alive: true,
                epoch: Epoch(0),
                held: false,
                decided: false,
                barrier: false,
                sent: BTreeMap::new(),
                counted: BTreeMap::new(),
                veto_next: false,
                load: Load {
                    room: u64::MAX,
                    ..Load::default()
                },
                overflows: false,
                atomics: process.0 % 5 == 4,
                greets: BTreeSet::new(),
                wants: Wants::NOTHING,
                heard: Vec::new(),
            },
        );
        self.say(process, FromRank::Join(join(process, Epoch(0))));
        process
    }

    fn say(&mut self, process: ProcId, message: FromRank) {
        let guest = self.ranks[&process].guest;
        self.memories[guest].said(process, &message);
        self.ranks_volume.count(&message);
        self.from_agent[guest].push_back(FromAgent::Ranks(vec![(process, message)]));
    }

    /// The agent dies and is back: what was under way is lost, but for what it had heard of ranks
    /// that left or died. Ranks join again; those that stand still do so until they are told.
    pub fn restart_agent(&mut self, guest: usize) {
        self.restarted = true;
        self.to_agent[guest].clear();
        self.to_ranks[guest].clear();
        self.memories[guest] = Memory::default();
        let mut kept = VecDeque::from([FromAgent::Hello {
            guest: format!("g{guest}"),
            agent_version: "0".into(),
            ranks: Vec::new(),
            memory: Box::default(),
        }]);
        for message in std::mem::take(&mut self.from_agent[guest]) {
            match &message {
                FromAgent::Gone { .. } => kept.push_back(message),
                FromAgent::Ranks(said) if matches!(said[..], [(_, FromRank::Leave { .. })]) => {
                    kept.push_back(message);
                }
                _ => {}
            }
        }
        self.from_agent[guest] = kept;
        let alive = self
            .ranks
            .iter_mut()
            .filter(|(_, rank)| rank.alive && rank.guest == guest);
        let mut joins = Vec::new();
        for (process, rank) in alive {
            rank.heard.push("lost");
            joins.push(join(*process, rank.epoch));
        }
        for join in joins {
            self.say(join.process, FromRank::Join(join));
        }
    }

    /// The coordinator is killed, with all that was on its way to and from it; another one begins,
    /// and every agent says hello to it.
    pub fn replace_coordinator(&mut self) {
        self.gang = Gang::resume(Epoch(0), Interconnect::Native);
        for guest in 0..self.guests {
            self.to_agent[guest].clear();
            self.from_agent[guest].clear();
            let here = || {
                let ranks = self.ranks.iter();
                ranks.filter(|(_, rank)| rank.alive && rank.guest == guest)
            };
            let members = here().filter(|(_, rank)| rank.welcomed);
            let hello = FromAgent::Hello {
                guest: format!("g{guest}"),
                agent_version: "0".into(),
                ranks: members.map(|(p, rank)| join(*p, rank.epoch)).collect(),
                memory: Box::new(self.memories[guest].clone()),
            };
            let waiting = here().filter(|(_, rank)| !rank.welcomed);
            let joins = waiting.map(|(p, rank)| (*p, FromRank::Join(join(*p, rank.epoch))));
            let joins = FromAgent::Ranks(joins.collect());
            self.from_agent[guest].extend([hello, joins]);
        }
    }

    /// Nothing is heard of the guest for now.
    pub fn mute(&mut self, guest: usize) {
        self.muted = Some(guest);
    }

    /// Until now.
    pub fn unmute(&mut self) {
        self.muted = None;
    }

    /// The new coordinator settles what it finds, as soon as that is possible.
    pub fn recover(&mut self) -> bool {
        let all: Vec<GuestId> = (0..self.guests).map(guest_id).collect();
        let recovered = self.gang.recover(&all);
        let settled = recovered.is_ok();
        self.apply(recovered.unwrap_or_default());
        settled
    }

    /// Application traffic; only ranks whose gate is open and that are members send, and a
    /// worker's address is known to others only after its process was welcomed.
    pub fn send(&mut self, from: ProcId, to: ProcId, messages: u64) {
        if !self.ranks.get(&to).is_some_and(|rank| rank.welcomed) {
            return;
        }
        if let Some(rank) = self.ranks.get_mut(&from)
            && rank.alive
            && rank.welcomed
            && !rank.held
        {
            *rank.sent.entry(to).or_default() += messages;
        }
    }

    pub fn leave(&mut self, process: ProcId) {
        let Some(rank) = self.ranks.get_mut(&process) else {
            return;
        };
        if !rank.alive || !rank.welcomed || rank.held {
            return;
        }
        rank.alive = false;
        let (epoch, sent, guest) = (rank.epoch, rank.sent.clone(), rank.guest);
        self.memories[guest].leaves(process, epoch, counts(&sent));
        for (to, n) in &sent {
            *self.departed.entry((epoch, *to)).or_default() += n;
        }
        self.say(
            process,
            FromRank::Leave {
                sent: counts(&sent),
            },
        );
        self.gone(process);
    }

    /// It ends, and what says so is lost with its agent.
    pub fn end_unheard(&mut self, process: ProcId) {
        if let Some(rank) = self.ranks.get_mut(&process) {
            rank.alive = false;
            let guest = rank.guest;
            self.killed = true;
            self.restart_agent(guest);
        }
    }

    pub fn kill(&mut self, process: ProcId) {
        let Some(rank) = self.ranks.get_mut(&process) else {
            return;
        };
        if std::mem::replace(&mut rank.alive, false) {
            self.killed = true;
            let (guest, join) = (rank.guest, join(process, rank.epoch));
            self.memories[guest].dies(&join);
            self.gone(process);
        }
    }

    fn gone(&mut self, process: ProcId) {
        let guest = self.ranks[&process].guest;
        self.from_agent[guest].push_back(FromAgent::Gone { process, pid: 1000 });
    }

    pub fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Outcome(outcome) => self.outcomes.push(outcome),
                Effect::Send { guest, message } => {
                    let index: usize = guest.0[1..].parse().expect("our own name");
                    self.messages_to_guests += 1;
                    self.guests_volume.count(&message);
                    self.check(&message);
                    if let ToAgent::Ranks(said) = &message
                        && let [(_, ToRank::Peers { table, .. })] = &said[..]
                    {
                        let told = table.iter().map(|blob| (index, blob.object));
                        self.told_guests.extend(told);
                    }
                    self.to_agent[index].push_back(message);
                }
            }
        }
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        3 * self.guests
    }

    /// Moves one message of one queue; false if that queue was empty.
    pub fn step(&mut self, queue: usize) -> bool {
        let guest = queue % self.guests;
        match queue / self.guests % 3 {
            0 => match self.to_agent[guest].pop_front() {
                Some(message) => self.agent_hears(guest, message),
                None => return false,
            },
            1 if self.muted == Some(guest) => return false,
            1 => match self.from_agent[guest].pop_front() {
                Some(message) => {
                    self.guests_volume.count(&message);
                    let effects = self.gang.hear(&guest_id(guest), message);
                    self.apply(effects);
                }
                None => return false,
            },
            _ => match self.to_ranks[guest].pop_front() {
                Some((process, message)) => self.rank_hears(process, message),
                None => return false,
            },
        }
        true
    }

    /// Until all queues are empty.
    pub fn run(&mut self) {
        for _ in 0..1_000_000 {
            let moved = (0..self.queues()).filter(|queue| self.step(*queue)).count();
            if moved == 0 {
                return;
            }
        }
        panic!("the gang and its ranks talk for ever");
    }

    fn agent_hears(&mut self, guest: usize, message: ToAgent) {
        let members: Vec<ProcId> = self
            .ranks
            .iter()
            .filter(|(_, rank)| rank.guest == guest && rank.welcomed && rank.alive)
            .map(|(process, _)| *process)
            .collect();
        let memory = &mut self.memories[guest];
        let inbox = &mut self.to_ranks[guest];
        match message {
            ToAgent::Prepare {
                epoch,
                interconnect,
            } => {
                memory.prepare(epoch, interconnect, members.iter().copied());
                let prepare = ToRank::Prepare {
                    epoch,
                    transports: Transports::default(),
                };
                inbox.extend(members.iter().map(|process| (*process, prepare.clone())));
            }
            ToAgent::Ranks(messages) => {
                for (recipient, message) in messages {
                    match recipient {
                        Recipient::One(process) => {
                            // A member from here on, for the agent.
                            if let (ToRank::Welcome(welcome), Some(rank)) =
                                (&message, self.ranks.get_mut(&process))
                            {
                                rank.welcomed = true;
                                rank.epoch = welcome.epoch;
                            }
                            inbox.push_back((process, message));
                        }
                        Recipient::All => {
                            memory.told(&message, members.iter().copied());
                            for process in &members {
                                let part = share(&message, *process, &self.ranks[process].wants);
                                inbox.push_back((*process, part.unwrap_or(message.clone())));
                            }
                        }
                    }
                }
            }
            ToAgent::Current {
                epoch,
                interconnect,
            } => memory.current(epoch, interconnect),
            ToAgent::Found { .. } | ToAgent::ReportDevices | ToAgent::DropCache => {}
        }
    }
}

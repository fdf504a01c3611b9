//! Agents that a test plays, at the other end of byte streams in memory.

pub mod gang;
mod played;

pub use played::Slow;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use symvirt_host::config::{HostName, VmName};
use symvirt_host::guest::{Connector, Stream};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::link::Link;
use symvirt_protocol::rank::Join;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use played::{Agent, Manner};

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

/// An agent that can be stopped, its link kept.
pub struct Played {
    stop: Arc<Notify>,
    task: JoinHandle<Agent>,
}

/// What outlives an agent.
pub struct Killed(Agent);

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

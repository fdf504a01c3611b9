//! `symvirt-guest agent`: one in each guest, between its ranks and the host.
//!
//! ```text
//!   ranks ──unix socket──► sockets ─┐                ┌─► board ──► ranks
//!                                   ├─► core (pure) ─┤
//!   host ◄──port──► link (host) ────┘                └─► host ──► link ──► port
//! ```
//!
//! It holds no state that a job depends on: when it dies, ranks run on and join again when it is
//! back. What it remembers of a switch serves the coordinator after one that was killed. It opens no
//! verbs device and no network port.

pub mod board;
pub mod core;
pub mod devices;
mod host;
pub mod interconnect;
pub mod overdue;
mod page_cache;
mod port;
pub mod sockets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use symvirt_protocol::agent::{DeviceReport, FromAgent};
use symvirt_protocol::query::{AgentStatus, Answer, Query};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::board::Board;
use self::core::{Core, Output};
use self::devices::{Devices, structure};
use self::host::Host;
use self::overdue::Overdue;
use self::page_cache::PageCache;
use self::port::Location;
use self::sockets::Socket;

/// Where ranks find the agent unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/symvirt/agent.sock";
/// How often the structure of devices is looked at once the coordinator wants to know: some dozens
/// of small files. Holders are looked for, in all of /proc, only when it asks or that has changed.
const DEVICE_POLL: Duration = Duration::from_millis(500);

/// Speak for the ranks of this guest towards the host.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Unix socket for ranks
    #[arg(long, env = "SYMVIRT_AGENT_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Device node (or unix socket to connect to) of the host channel; default: the virtio-serial
    /// port named org.symvirt.guest.0, whenever it appears
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,
}

/// The name of this guest, for people.
pub fn guest_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "guest".to_owned()
    } else {
        name.to_owned()
    }
}

/// A core that resolves interconnects by the devices of this machine.
pub fn core_of(devices: &Devices) -> Core {
    let devices = devices.clone();
    let resolve =
        move |interconnect: &_| interconnect::resolve(interconnect, &devices.without_holders());
    Core::new(guest_name(), Box::new(resolve))
}

/// Answers a question about the agent.
pub fn answer(query: Query, core: &mut Core, devices: &Devices) -> Answer {
    match query {
        Query::Reach { object, epoch } => Answer::Reach(core.reach(object, epoch)),
        Query::Processes => {
            let ranks = core.rank_status().into_iter();
            Answer::Processes(ranks.map(|rank| rank.process).collect())
        }
        Query::Status => {
            let (epoch, interconnect, transports) = core.current();
            let (switch, coordinator) = core.switch();
            Answer::Status(Box::new(AgentStatus {
                guest: guest_name(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                coordinator,
                epoch,
                interconnect,
                transports,
                switch,
                ranks: core.rank_status(),
                devices: devices.report(&core.rank_pids()),
            }))
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let socket = Socket::bind(&args.socket)?;
    let location = args.host.map_or(Location::Named, Location::At);
    info!(socket = %args.socket.display(), ?location, "agent of {}", guest_name());
    let host = Host::start(location)?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        ended = Agent::new(host, Devices::below(Path::new("/"))).serve(&socket) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

struct Agent {
    core: Core,
    board: Board,
    host: Host,
    devices: Devices,
    /// The last device report sent; the coordinator wants to hear of changes if there is one.
    reported: Option<DeviceReport>,
    /// The coordinator asked and has not been answered.
    asked: bool,
    /// A look at the devices that is under way, not in the way of a round.
    look: Option<JoinHandle<Look>>,
    /// The page cache is being dropped; how much that was.
    drop: Option<JoinHandle<std::io::Result<u64>>>,
    overdue: Overdue,
}

/// What was seen.
enum Look {
    /// Without the holders.
    Structure(DeviceReport),
    Everything(DeviceReport),
}

impl Agent {
    fn new(host: Host, devices: Devices) -> Self {
        let core = core_of(&devices);
        let board = Board::default();
        Agent {
            core,
            board,
            host,
            devices,
            reported: None,
            asked: false,
            look: None,
            drop: None,
            overdue: Overdue::new(),
        }
    }

    async fn serve(mut self, socket: &Socket) -> anyhow::Result<()> {
        let (events, mut happening) = mpsc::channel(256);
        let mut poll = tokio::time::interval(DEVICE_POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let serving = socket.serve(events);
        tokio::pin!(serving);
        loop {
            let deadlines = [self.core.deadline(), self.overdue.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            tokio::select! {
                () = &mut serving => anyhow::bail!("the socket is not served any more"),
                event = happening.recv() => self.rank_event(event.context("the socket is closed")?),
                event = self.host.next() => self.host_event(event?),
                () = at(deadline) => self.core.tick(Instant::now()),
                _ = poll.tick(), if self.reported.is_some() && self.look.is_none() => {
                    self.look_at_structure();
                }
                seen = done(&mut self.look) => self.report(seen?)?,
                dropped = done(&mut self.drop) => self.tell_dropped(dropped?)?,
            }
            self.overdue.tick(&mut self.core, Instant::now());
            self.carry_out()?;
        }
    }

    fn rank_event(&mut self, event: sockets::Event) {
        match event {
            sockets::Event::Opened(conn, outbox) => self.board.open(conn, outbox),
            sockets::Event::Said(conn, message) => {
                self.core.rank_said(conn, message, Instant::now());
            }
            sockets::Event::Closed(conn) => {
                self.board.close(conn);
                self.core.rank_closed(conn);
            }
            sockets::Event::Asked(query, reply) => {
                if reply
                    .send(answer(query, &mut self.core, &self.devices))
                    .is_err()
                {
                    tracing::debug!("who asked did not wait for the answer");
                }
            }
        }
    }

    fn host_event(&mut self, event: host::Event) {
        match event {
            host::Event::Session => {
                info!("coordinator connected");
                self.reported = None;
                self.core.host_session();
            }
            host::Event::Present(present) => self.core.host_present(present, Instant::now()),
            host::Event::Forgotten => self.core.host_forgotten(),
            host::Event::Said(message) => self.core.host_said(message),
        }
    }

    fn carry_out(&mut self) -> anyhow::Result<()> {
        for output in self.core.take_outputs() {
            match output {
                Output::Ranks(conns, message) => self.board.write(&conns, &message),
                Output::Host(message) => self.host.send(&message)?,
                Output::Drop(conn, reason) => {
                    warn!(conn = conn.0, reason, "disconnected");
                    self.board.close(conn);
                    self.core.rank_closed(conn);
                }
                Output::ReportDevices => self.asked = true,
                Output::DropCache => self.drop_cache(),
            }
        }
        if self.asked && self.look.is_none() {
            self.asked = false;
            self.look_at_everything();
        }
        Ok(())
    }

    /// Takes seconds where there is much.
    fn drop_cache(&mut self) {
        if self.drop.is_none() {
            let cache = PageCache::below(Path::new("/"));
            self.drop = Some(tokio::task::spawn_blocking(move || cache.drop()));
        }
    }

    fn tell_dropped(&mut self, dropped: std::io::Result<u64>) -> anyhow::Result<()> {
        if let Err(error) = &dropped {
            let message = format!("drop the page cache: {error}");
            self.host.send(&FromAgent::Problem { message })?;
        }
        let bytes = dropped.unwrap_or(0);
        self.host.send(&FromAgent::CacheDropped { bytes })?;
        Ok(())
    }

    fn look_at_structure(&mut self) {
        let devices = self.devices.clone();
        self.look = Some(tokio::task::spawn_blocking(move || {
            Look::Structure(devices.without_holders())
        }));
    }

    fn look_at_everything(&mut self) {
        let (devices, ranks) = (self.devices.clone(), self.core.rank_pids());
        self.look = Some(tokio::task::spawn_blocking(move || {
            Look::Everything(devices.report(&ranks))
        }));
    }

    fn report(&mut self, seen: Look) -> anyhow::Result<()> {
        match seen {
            Look::Everything(report) => {
                self.host.send(&FromAgent::Devices(report.clone()))?;
                self.reported = Some(report);
            }
            Look::Structure(now) => {
                let changed = |before: &DeviceReport| structure(before) != structure(&now);
                if self.reported.as_ref().is_some_and(changed) {
                    self.look_at_everything();
                }
            }
        }
        Ok(())
    }
}

/// The result of what is under way; for ever if nothing is.
async fn done<T>(under_way: &mut Option<JoinHandle<T>>) -> anyhow::Result<T> {
    let Some(handle) = under_way else {
        return std::future::pending().await;
    };
    let result = handle.await.context("what was under way has panicked");
    *under_way = None;
    result
}

/// Sleeps until `deadline`, for ever without one.
pub async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

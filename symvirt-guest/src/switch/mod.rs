//! The switch of transports, done by two helper threads of each rank.
//!
//! ```text
//!   agent ──► controller ──jobs──► builder
//!             commit               build, wire up
//!             drain, swap          abandon, release
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`controller`] | one loop over the agent's messages; commit and open as straight recipes |
//! | [`builder`] | what takes long and may go on beside the job |
//! | [`side`], [`hello`] | a real side under construction: contexts, workers, endpoints wired up |
//! | [`exposure`] | registered memory, and the keys to that of peers, on such a side |
//! | [`drain`], [`pull`], [`matching`] | emptying the old side; synchronous sends meanwhile |
//! | [`swap`] | the change-over itself, under the closed gate |
//! | [`flip`] | sends change over before the rest; what the application may do meanwhile |
//! | [`orphaned`] | what a process does in mid-switch that has lost its agent |
//! | [`slowdown`] | no switch: pauses in the same beat on all ranks |
//!
//! A real worker has one owner at a time: the application, or one of the helpers. Ownership
//! changes only under the closed gate, or with the side itself, which is handed over whole. Between
//! a flip and its swap the application owns the workers of both sides.

mod builder;
mod controller;
mod drain;
mod exposure;
pub mod flip;
mod hello;
mod matching;
mod orphaned;
mod pull;
mod side;
mod slowdown;
mod swap;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Once, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use symvirt_protocol::rank::{FromRank, Join, ToRank, Welcome};

use crate::barrier;
use crate::channel::{Channel, ChannelError};
use crate::life;
use crate::object::lock;
use crate::process::gang;
use crate::real::real;
use builder::Builder;
use controller::Controller;
use side::Side;

/// How long a joining process waits for its welcome: it is delayed while a switch is under way.
const WELCOME_LIMIT: Duration = Duration::from_secs(120);
/// How often it looks whether it still wants one.
const LOOK: Duration = Duration::from_millis(100);

/// What controller, builder and application threads share.
struct Shared {
    channel: Mutex<Arc<Channel>>,
    /// A side that has voted, waiting for its commit.
    prepared: Mutex<Option<Side>>,
    /// The round was abandoned: whoever wires up stops.
    abandoned: AtomicBool,
    /// The process leaves the gang, with these words.
    farewell: OnceLock<FromRank>,
}

impl Shared {
    fn channel(&self) -> Arc<Channel> {
        lock(&self.channel).clone()
    }

    fn send(&self, message: &FromRank) {
        self.channel().send(message);
    }

    fn is_leaving(&self) -> bool {
        self.farewell.get().is_some()
    }

    /// Speaks to another agent from now on. If the process leaves meanwhile, that one is told, and
    /// nobody waits for what it says: whoever leaves may have ended the channel before.
    fn change_agent(&self, channel: Channel) {
        let channel = Arc::new(channel);
        *lock(&self.channel) = channel.clone();
        if let Some(farewell) = self.farewell.get() {
            channel.send(farewell);
            channel.close();
        }
    }

    /// Looks for an agent again, in the middle of a switch: one that is there is told who this
    /// process is, and what it says is heard from now on.
    fn meet_again(&self) {
        if let Ok(channel) = Channel::connect() {
            introduce(&channel);
            self.change_agent(channel);
        }
    }
}

/// The running helper threads.
pub struct Helpers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Why no helpers were started: the process stays outside the gang.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("no welcome from the agent within {WELCOME_LIMIT:?}")]
    NoWelcome,
    #[error("the kernel refuses membarrier")]
    Membarrier(#[source] std::io::Error),
    #[error("start a helper thread")]
    Thread(#[source] std::io::Error),
}

/// Joins the gang and starts the helpers. The process is in the gang's epoch when this returns.
///
/// # Errors
/// There is no agent, or it does not answer; nothing was started.
pub fn start() -> Result<Helpers, StartError> {
    let channel = Channel::connect()?;
    barrier::announce().map_err(StartError::Membarrier)?;
    crate::spool::read_settings();
    crate::object::near::read_settings();
    crate::process::holds::limit();
    let welcome = join(&channel, || true)?;
    gang::begin_epoch(welcome.epoch, welcome.transports, &[], Vec::new());
    crate::advice::start();
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        life::install_fork_handler();
        life::install_exit_handler();
    });

    let shared = Arc::new(Shared {
        channel: Mutex::new(Arc::new(channel)),
        prepared: Mutex::new(None),
        abandoned: AtomicBool::new(false),
        farewell: OnceLock::new(),
    });
    let (jobs, queue) = mpsc::channel();
    let builder = Builder::new(shared.clone(), queue);
    let controller = Controller::new(shared.clone(), jobs);
    let build = life::spawn_helper("symvirt-build", move || builder.run());
    let build = build.map_err(StartError::Thread)?;
    let control = life::spawn_helper("symvirt-switch", move || controller.run());
    let control = control.map_err(StartError::Thread)?;
    Ok(Helpers {
        shared,
        threads: vec![control, build],
    })
}

impl Helpers {
    /// The channel to the agent.
    pub fn channel(&self) -> Arc<Channel> {
        self.shared.channel()
    }

    /// Tells the gang, and ends the helpers. No round is under way.
    pub fn leave(self, farewell: FromRank) {
        let farewell = self.shared.farewell.get_or_init(|| farewell);
        let channel = self.shared.channel();
        channel.send(farewell);
        channel.close();
        for thread in self.threads {
            if thread.join().is_err() {
                crate::log::warning!("a helper thread ended by a panic");
            }
        }
    }
}

/// Says who this process is, and what it has said of synchronous sends.
fn introduce(channel: &Channel) {
    let (mut major, mut minor, mut release) = (0, 0, 0);
    // SAFETY: places for three numbers.
    unsafe { (real().get_version)(&raw mut major, &raw mut minor, &raw mut release) };
    let program = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    channel.send(&FromRank::Join(Join {
        process: gang::process(),
        pid: std::process::id(),
        program: program.trim_end().to_owned(),
        mpi_rank: mpi_rank(),
        ucx_version: format!("{major}.{minor}.{release}"),
        epoch: gang::epoch(),
        blobs: gang::own_blobs(),
    }));
    // An agent may have died before it passed them on.
    let syncs = gang::confirmed();
    if !syncs.is_empty() {
        channel.send(&FromRank::Matched { syncs });
    }
}

/// Says who this process is, and waits for the welcome as long as it `wants` one.
fn join(channel: &Channel, wants: impl Fn() -> bool) -> Result<Welcome, StartError> {
    introduce(channel);
    let deadline = Instant::now() + WELCOME_LIMIT;
    while wants() && Instant::now() < deadline {
        if let Some(ToRank::Welcome(welcome)) = channel.receive(LOOK)? {
            return Ok(welcome);
        }
    }
    Err(StartError::NoWelcome)
}

/// The rank in MPI_COMM_WORLD, as launchers tell it.
fn mpi_rank() -> Option<u32> {
    [
        "OMPI_COMM_WORLD_RANK",
        "PMIX_RANK",
        "PMI_RANK",
        "SLURM_PROCID",
    ]
    .into_iter()
    .find_map(|name| std::env::var(name).ok()?.parse().ok())
}

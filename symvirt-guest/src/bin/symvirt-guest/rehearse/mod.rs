//! `symvirt-guest rehearse`: cycles the transports of a job on one machine.
//!
//! ```text
//!   mpirun ─► ranks + libsymvirt.so ──unix socket──► core ◄──► gang     (all in this process)
//!                                                              ▲
//!                                        every 200 ms: switch ─┘
//! ```
//!
//! The same agent core and the same coordinator that move a gang of VMs, without VM, host channel
//! and daemon: what passes here is what a migration asks of the application.
//!
//! It never hangs: each phase of a switch has a limit; a rank that stands still beyond it is
//! named, and the job is killed (or left, to be looked at).

pub mod interval;
mod job;
pub mod over;
mod pace;
pub mod record;
pub mod report;
mod stage;
mod volume;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use symvirt_protocol::rank::SwitchOrder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::agent::at;
use crate::agent::sockets::{self, Socket};
use crate::exec::Environment;
use crate::watch::Process;
use interval::Interval;
use job::Job;
use over::{Item, Items};
use pace::Pace;
use record::Record;
use report::Report;
use stage::Stage;

/// How often the job's processes are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Time for connections to end after the job has.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Cycle the transports of a job on this machine, and report whether it survives and for how long
/// it stands still.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Time from the start of one switch to the start of the next; SHORTEST..LONGEST draws it
    /// anew each time
    #[arg(long, value_name = "TIME", default_value = "200ms")]
    pub every: Interval,
    /// Transports to go through: names of tcp, shm, native, fallback, separated by commas, or
    /// one TLS@DEVICES; may be repeated
    #[arg(long, value_name = "LIST", default_value = "tcp,shm")]
    pub over: Vec<Items>,
    /// Make-before-break, break-before-make, or both in turn
    #[arg(long, value_enum, default_value = "mbb")]
    pub order: Order,
    /// Stop switching after this time; the job goes on to its end
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Stop switching after this many switches
    #[arg(long, value_name = "COUNT")]
    pub switches: Option<u64>,
    /// Also cancel every COUNTth attempt, each a little later than the one before: abandoned
    /// switches must leave no trace either
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub cancel_every: Option<u64>,
    /// Also let the coordinator forget everything in every COUNTth attempt, sooner or later:
    /// another one learns from the agent where the switch stands
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), hide = true)]
    pub forget_every: Option<u64>,
    /// Also slow the job down by so much, as when its VMs write their memory faster than the link
    /// carries it
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=95))]
    pub slow: u8,
    /// Also let the agent die in every COUNTth attempt, sooner or later, and another one begin
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), hide = true)]
    pub lose_agent_every: Option<u64>,
    /// Longest wait for the ranks in one phase of a switch
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub round_timeout: Duration,
    /// Longest run of the job as a whole
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub job_timeout: Option<Duration>,
    /// What to do with a job of which a rank is stuck in a switch
    #[arg(long, value_enum, default_value = "kill")]
    pub on_stuck: OnStuck,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// End the job well after this time: enough was seen
    #[arg(skip)]
    pub enough: Option<Duration>,
    /// The job: a launcher and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<OsString>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
pub enum Order {
    /// Make-before-break
    Mbb,
    /// Break-before-make
    Bbm,
    /// In turn
    Both,
}

impl Order {
    fn of_switch(self, number: usize) -> SwitchOrder {
        match self {
            Order::Mbb => SwitchOrder::MakeBeforeBreak,
            Order::Bbm => SwitchOrder::BreakBeforeMake,
            Order::Both if number.is_multiple_of(2) => SwitchOrder::MakeBeforeBreak,
            Order::Both => SwitchOrder::BreakBeforeMake,
        }
    }
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
pub enum OnStuck {
    /// End the job
    Kill,
    /// Leave the job as it is and end the rehearsal
    Leave,
}

/// Why the job is not waited for any longer.
enum End {
    Exited(std::process::ExitStatus),
    Stuck,
    TimedOut,
    /// Enough was seen of it.
    Enough,
    Interrupted,
}

/// Runs the job to its end. The exit code is the job's, or 1 if it passed without having been
/// rehearsed: no switch happened, a rank was lost, or something of it cannot be moved.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (report, _) = conduct(&args).await?;
    eprint!("{report}");
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("make JSON")?;
        std::fs::write(file, json).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(report.exit_code())
}

/// Runs the job, and says what happened and who took part.
///
/// # Errors
/// When it cannot be started or watched; a job that fails is no error.
pub async fn conduct(args: &Args) -> anyhow::Result<(Report, Vec<Process>)> {
    let environment = Environment::prepare(|name| std::env::var_os(name))?;
    environment.say();
    let directory = tempfile::Builder::new()
        .prefix("symvirt-rehearse-")
        .tempdir();
    let directory = directory.context("make a directory for the socket")?;
    let socket = Socket::bind(&directory.path().join("agent.sock"))?;
    let mut job = Job::start(
        &args.command,
        environment,
        &directory.path().join("agent.sock"),
    )?;
    let items = args
        .over
        .iter()
        .flat_map(|items| items.0.clone())
        .collect::<Vec<Item>>();
    let mut stage = Stage::new();
    let end = perform(args, &items, &socket, &mut stage, &mut job).await?;
    let (status, stuck) = match end {
        End::Exited(status) => (Some(status), false),
        End::Stuck if args.on_stuck == OnStuck::Leave => {
            eprintln!(
                "symvirt-guest: the job is left as it is, launcher pid {}",
                job.pid()
            );
            (None, true)
        }
        End::Stuck => (Some(job.kill(&stage.rank_pids()).await?), true),
        End::TimedOut => {
            eprintln!("symvirt-guest: the job is ended: it took longer than --job-timeout");
            (Some(job.kill(&stage.rank_pids()).await?), true)
        }
        End::Enough => (Some(job.kill(&stage.rank_pids()).await?), false),
        End::Interrupted => {
            eprintln!("symvirt-guest: interrupted, the job is ended");
            (Some(job.kill(&stage.rank_pids()).await?), true)
        }
    };
    if args.on_stuck == OnStuck::Leave && status.is_none() {
        job.leave();
    }
    let findings = stage.watch.findings();
    let report = stage.record.report(status, stuck, findings);
    Ok((report, stage.watch.processes()))
}

async fn perform(
    args: &Args,
    items: &[Item],
    socket: &Socket,
    stage: &mut Stage,
    job: &mut Job,
) -> anyhow::Result<End> {
    let (events, mut happening) = mpsc::channel::<sockets::Event>(256);
    let serving = socket.serve(events);
    tokio::pin!(serving);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let started = Instant::now();
    let stop = args.duration.map(|duration| started + duration);
    let mut pace = Pace::new(args.every, stop, args.switches);
    let (mut cancel_at, mut forget_at, mut lose_at) = (None, None, None);
    let mut look_at = started + LOOK;
    loop {
        let now = Instant::now();
        if let Some(number) = pace.due(now, stage.standing()) {
            let item = &items[number % items.len()];
            stage.switch(item, args.order.of_switch(number))?;
            cancel_at = pace.interruption(args.cancel_every, now);
            forget_at = pace.oblivion(args.forget_every, now);
            lose_at = pace.oblivion(args.lose_agent_every, now);
        }
        if cancel_at.is_some_and(|at| at <= now) {
            cancel_at = None;
            stage.cancel();
        }
        if forget_at.is_some_and(|at| at <= now) {
            forget_at = None;
            stage.forget();
        }
        if lose_at.is_some_and(|at| at <= now) {
            lose_at = None;
            stage.lose_agent();
        }
        if look_at <= now {
            stage.look(job.pid(), now);
            stage.slow_down(args.slow);
            look_at = now + LOOK;
        }
        let wake = [
            Some(look_at),
            stage.core_deadline(),
            stage.deadline(args.round_timeout),
            pace.next(now, stage.standing()),
            cancel_at,
            forget_at,
            lose_at,
        ];
        let end = args.job_timeout.map(|limit| started + limit);
        tokio::select! {
            () = &mut serving => anyhow::bail!("the socket is not served any more"),
            event = happening.recv() => stage.hear(event.context("the socket is closed")?),
            status = job.wait() => {
                let status = status?;
                aftermath(stage, &mut happening, &mut serving).await;
                return Ok(End::Exited(status));
            }
            () = at(wake.into_iter().flatten().min()) => {}
            () = at(end) => return Ok(End::TimedOut),
            () = at(args.enough.map(|limit| started + limit)) => return Ok(End::Enough),
            _ = terminate.recv() => return Ok(End::Interrupted),
            _ = interrupt.recv() => return Ok(End::Interrupted),
        }
        stage.pass_time(Instant::now(), args.round_timeout);
        if stage.is_stuck() {
            stage.describe_stuck();
            return Ok(End::Stuck);
        }
    }
}

/// The job is over: hears what its ranks have said last.
async fn aftermath(
    stage: &mut Stage,
    happening: &mut mpsc::Receiver<sockets::Event>,
    serving: &mut (impl Future<Output = ()> + Unpin),
) {
    let limit = Instant::now() + AFTERMATH;
    while stage.has_ranks() {
        tokio::select! {
            () = &mut *serving => return,
            event = happening.recv() => match event {
                Some(event) => stage.hear(event),
                None => return,
            },
            () = at(Some(limit)) => return,
        }
    }
}

//! `symvirt-guest status`: what the agent of this guest knows.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use symvirt_protocol::frame::{self, Decoder};
use symvirt_protocol::query::{AgentStatus, Answer, GREETING, Query};

use crate::agent::DEFAULT_SOCKET;

/// Longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show ranks, transports and devices of this guest.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The agent's socket
    #[arg(long, env = "SYMVIRT_AGENT_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let status =
        ask(args).with_context(|| format!("ask the agent at {}", args.socket.display()))?;
    let text = if args.json {
        serde_json::to_string_pretty(&status)?
    } else {
        describe(&status)
    };
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // The reader (`head`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("print status"),
    }
}

fn ask(args: &Args) -> anyhow::Result<AgentStatus> {
    let mut stream = UnixStream::connect(&args.socket).context("connect")?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("bound the wait")?;
    stream.write_all(&GREETING).context("greet")?;
    stream
        .write_all(&frame::encode(&Query::Status)?)
        .context("send")?;
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        match decoder.next()? {
            Some(Answer::Status(status)) => return Ok(*status),
            Some(Answer::Processes(_) | Answer::Reach(_)) => {
                anyhow::bail!("the agent answers another question")
            }
            None => {}
        }
        let read = stream.read(&mut buffer).context("wait for the answer")?;
        anyhow::ensure!(read > 0, "the agent ended the connection");
        decoder.push(&buffer[..read]);
    }
}

fn describe(status: &AgentStatus) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.push_str(&line.to_string());
        text.push('\n');
    };
    let coordinator = if status.coordinator {
        "connected"
    } else {
        "not connected"
    };
    line(format_args!(
        "guest        {} (agent {})",
        status.guest, status.agent_version
    ));
    line(format_args!("coordinator  {coordinator}"));
    line(format_args!("epoch        {}", status.epoch));
    line(format_args!("transports   {}", transports(status)));
    if let Some(epoch) = status.switch {
        line(format_args!("switch       {epoch} under way"));
    }
    line(format_args!("ranks        {}", status.ranks.len()));
    for rank in &status.ranks {
        let number = rank
            .mpi_rank
            .map_or_else(|| "-".to_owned(), |rank| rank.to_string());
        let state = if rank.member { "member" } else { "waiting" };
        line(format_args!(
            "  rank {number:<4} pid {:<7} {:<16} {state}, epoch {}, UCX {}, last said {}, \
             spool {} bytes, peak {}",
            rank.pid,
            rank.program,
            rank.epoch,
            rank.ucx_version,
            rank.said,
            rank.spool_bytes,
            rank.spool_peak
        ));
        if let Some(at) = &rank.stands {
            line(format_args!("    owes an answer; stands: {at}"));
        }
    }
    for device in &status.devices.verbs {
        let netdev = device.netdev.as_deref().unwrap_or("-");
        line(format_args!("verbs        {} on {netdev}", device.name));
        for port in &device.ports {
            line(format_args!(
                "  port {} {}, {} GIDs",
                port.number,
                port.state,
                port.gids.len()
            ));
        }
        for holder in &device.holders {
            let who = if holder.rank { "rank" } else { "not a rank" };
            line(format_args!(
                "  held by pid {} ({}), {who}",
                holder.pid, holder.program
            ));
        }
    }
    for netdev in &status.devices.netdevs {
        let state = if netdev.up { "up" } else { "down" };
        let hca = if netdev.hca { ", HCA" } else { "" };
        let pci = netdev.pci.as_deref().unwrap_or("no PCI address");
        line(format_args!(
            "netdev       {} {state}{hca}, {pci}",
            netdev.name
        ));
    }
    text
}

fn transports(status: &AgentStatus) -> String {
    match (&status.transports.tls, &status.transports.net_devices) {
        (None, None) => "as the job was started with".to_owned(),
        (tls, devices) => {
            let any = || "any".to_owned();
            let (tls, devices) = (tls.clone().unwrap_or_else(any), devices.clone());
            format!("{tls} on {}", devices.unwrap_or_else(any))
        }
    }
}

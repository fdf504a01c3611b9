//! `symvirt-guest doctor`: explains whether a job can be moved, and what stands in the way.
//!
//! Without a command it looks at the guest: library, agent, MPI, UCX, settings, HCAs. With one it
//! also runs the job for some seconds, looks into each of its processes, and tries to switch it to
//! the transports of the fallback and back. Every finding comes with what mends it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use symvirt_inspect::finding::Finding;
use symvirt_protocol::agent::DeviceReport;

use crate::agent::DEFAULT_SOCKET;
use crate::agent::devices::Devices;
use crate::exec::Environment;
use crate::rehearse::{self, OnStuck, Order};
use crate::watch::Process;

/// Switches that are tried.
const SWITCHES: u64 = 4;
/// Launchers that are asked for their versions.
const LAUNCHERS: [&str; 4] = ["mpirun", "mpirun.openmpi", "mpirun.mpich", "prterun"];

/// Explain whether a job can be moved, and what stands in the way.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The agent's socket
    #[arg(long, env = "SYMVIRT_AGENT_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// End the job after this time: enough was seen
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    watch: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The job: a launcher and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What was seen.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// Nothing was found; a job, if there was one, was switched.
    movable: bool,
    guest: Guest,
    job: Option<Job>,
    findings: Vec<Finding>,
}

/// Where jobs are started.
#[derive(Debug, Serialize)]
struct Guest {
    library: Option<PathBuf>,
    agent: PathBuf,
    agent_listens: bool,
    /// Launchers and their versions.
    mpi: Vec<(String, String)>,
    ucx: Option<String>,
    /// What `exec` sets, and what the user has set.
    settings: Vec<(String, String)>,
    devices: DeviceReport,
}

/// The job that was run.
#[derive(Debug, Serialize)]
struct Job {
    exit_code: Option<i32>,
    processes: Vec<Process>,
    switches: u64,
    abandoned: Vec<String>,
    failed: Vec<String>,
    ranks_lost: Vec<String>,
}

/// Looks, prints, and succeeds if nothing was found.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (guest, mut findings) = look_at_guest(&args.socket);
    let mut job = None;
    if !args.command.is_empty() && guest.library.is_some() {
        let ran = run_job(&args).await?;
        findings.extend(ran.0);
        job = Some(ran.1);
    }
    let diagnosis = Diagnosis {
        movable: findings.is_empty(),
        guest,
        job,
        findings,
    };
    let text = if args.json {
        serde_json::to_string_pretty(&diagnosis).context("make JSON")?
    } else {
        diagnosis.to_text()
    };
    println!("{}", text.trim_end());
    Ok(if diagnosis.movable {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn look_at_guest(socket: &Path) -> (Guest, Vec<Finding>) {
    let mut findings = Vec::new();
    let environment = Environment::prepare(|name| std::env::var_os(name));
    let mut settings: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| {
            ["OMPI_MCA_", "UCX_", "MPIR_CVAR_", "SYMVIRT_"]
                .iter()
                .any(|start| name.starts_with(start))
        })
        .collect();
    settings.sort();
    let mut library = None;
    match environment {
        Ok(environment) => {
            library = Some(environment.library);
            for (name, theirs, ours) in environment.kept {
                findings.push(Finding {
                    what: format!("{name}={theirs} is set: MPI may go around UCX"),
                    mend: format!("unset it, or set {name}={ours}"),
                });
            }
        }
        Err(error) => findings.push(Finding {
            what: format!("the library cannot be preloaded: {error:#}"),
            mend: "install it, or name it by SYMVIRT_LIB".to_owned(),
        }),
    }
    let guest = Guest {
        library,
        agent: socket.to_owned(),
        agent_listens: std::os::unix::net::UnixStream::connect(socket).is_ok(),
        mpi: LAUNCHERS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), version_of(name, "--version")?)))
            .collect(),
        ucx: version_of("ucx_info", "-v"),
        settings,
        devices: Devices::below("/").report(&std::collections::BTreeSet::new()),
    };
    (guest, findings)
}

/// What a program says of its version: the first line that has a number.
fn version_of(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains(|letter: char| letter.is_ascii_digit()))?;
    Some(line.trim_start_matches(['#', ' ']).trim().to_owned())
}

async fn run_job(args: &Args) -> anyhow::Result<(Vec<Finding>, Job)> {
    let rehearsal = rehearse::Args {
        every: Duration::from_millis(500).into(),
        over: vec!["fallback,native".parse()?],
        order: Order::Mbb,
        duration: None,
        switches: Some(SWITCHES),
        cancel_every: None,
        forget_every: None,
        lose_agent_every: None,
        slow: 0,
        round_timeout: Duration::from_secs(10),
        job_timeout: None,
        on_stuck: OnStuck::Kill,
        json: None,
        enough: Some(args.watch),
        command: args.command.clone(),
    };
    let (report, processes) = rehearse::conduct(&rehearsal).await?;
    let mut findings: Vec<Finding> = report.findings.into_iter().collect();
    if findings.is_empty() && report.switches == 0 {
        findings.push(Finding {
            what: match report.abandoned.last() {
                Some(reason) => format!("no switch took place: {reason}"),
                None => "no process made a UCX context while it was watched".to_owned(),
            },
            mend: match report.abandoned.last() {
                Some(_) => {
                    "what the reason names does not change by a setting of SymVirt".to_owned()
                }
                None => "let MPI send through UCX; --watch sets how long is looked".to_owned(),
            },
        });
    }
    let lost = report.failed.iter().chain(&report.ranks_lost);
    findings.extend(lost.map(|what| Finding {
        what: format!("a switch failed: {what}"),
        mend: "`symvirt-guest rehearse` repeats it; SYMVIRT_LOG=debug tells more".to_owned(),
    }));
    let job = Job {
        exit_code: report.job_exit_code,
        processes,
        switches: report.switches,
        abandoned: report.abandoned,
        failed: report.failed,
        ranks_lost: report.ranks_lost,
    };
    Ok((findings, job))
}

impl Diagnosis {
    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string does not fail.
            writeln!(text, "{name:<10} {value}").ok();
        };
        let shown = |path: &Option<PathBuf>| {
            let path = path.as_ref().map(|path| path.display().to_string());
            path.unwrap_or_else(|| "none".to_owned())
        };
        let guest = &self.guest;
        line("library", &shown(&guest.library));
        let listens = if guest.agent_listens {
            "listens"
        } else {
            "does not listen: a job runs, and nobody can move it"
        };
        line("agent", &format!("{} {listens}", guest.agent.display()));
        for (name, version) in &guest.mpi {
            line("MPI", &format!("{name}: {version}"));
        }
        line("UCX", guest.ucx.as_deref().unwrap_or("no ucx_info here"));
        for (name, value) in &guest.settings {
            line("setting", &format!("{name}={value}"));
        }
        for device in &guest.devices.verbs {
            let ports = device.ports.iter().map(|port| port.state.as_str());
            let ports = ports.collect::<Vec<_>>().join(", ");
            line("HCA", &format!("{} {ports}", device.name));
        }
        if guest.devices.verbs.is_empty() {
            line("HCA", "none");
        }
        if let Some(job) = &self.job {
            for process in &job.processes {
                line("process", &describe(process));
            }
            let (done, abandoned) = (job.switches, job.abandoned.len());
            line("switches", &format!("{done} done, {abandoned} abandoned"));
        }
        line(
            "verdict",
            match (self.movable, &self.job) {
                (true, Some(_)) => "the job can be moved",
                (true, None) => "nothing is in the way; `doctor -- mpirun …` looks at a job",
                (false, _) => "CANNOT be moved as it is:",
            },
        );
        for finding in &self.findings {
            line("", &format!("- {}", finding.what));
            line("", &format!("  {}", finding.mend));
        }
        text
    }
}

fn describe(process: &Process) -> String {
    let facts = &process.facts;
    let name = |path: &Option<PathBuf>| {
        let name = path.as_ref().and_then(|path| path.file_name());
        name.map_or_else(
            || "no MPI".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let ucx = process.ucx.as_ref().map_or_else(
        || "does not use UCX".to_owned(),
        |version| format!("UCX {version}"),
    );
    let components: Vec<&str> = facts.components.iter().map(String::as_str).collect();
    format!(
        "{} (pid {}): {}, {ucx} {}",
        facts.program,
        process.pid,
        name(&facts.mpi),
        components.join(" ")
    )
}

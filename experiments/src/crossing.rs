//! One operation of the daemon, followed to its end as `symvirt watch --json` tells it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use symvirt_host::api::model::OperationInfo;
use symvirt_host::operation::Phase;

use crate::lab::host::Host;
use crate::lab::{GANG, LabError};
use crate::traffic::now_ms;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// Host where the gang is.
    pub from: &'a Host,
    /// Name of the host where it is to be.
    pub to: &'a str,
    /// `live` or `hold`.
    pub mode: &'a str,
    /// Further options of `symvirt migrate`.
    pub options: &'a [&'a str],
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Crossing {
    /// Where the gang was.
    pub from: String,
    /// Where it was to be.
    pub to: String,
    /// `live` or `hold`.
    pub mode: String,
    /// When it was asked for, in milliseconds since 1970.
    pub began_ms: u64,
    /// When the command ended.
    pub ended_ms: u64,
    /// Exit status of `symvirt`.
    pub exit: Option<i32>,
    /// What the daemon said last.
    pub last: OperationInfo,
}

/// Gives the order, shows every state to `watch`, and returns when the operation has ended.
///
/// # Errors
/// [`LabError`] if the daemon refuses or cannot be reached. An operation that is rolled back is
/// not an error here: see [`Crossing::last`].
pub fn cross(
    order: &Order<'_>,
    watch: &mut dyn FnMut(&OperationInfo),
) -> Result<Crossing, LabError> {
    let began_ms = now_ms();
    let mut command = order.from.symvirt();
    command
        .args([
            "--json", "migrate", GANG, "--to", order.to, "--mode", order.mode,
        ])
        .args(order.options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = |source| LabError::File {
        what: "run symvirt migrate in",
        path: order.from.state(),
        source,
    };
    let mut child = command.spawn().map_err(start)?;
    let mut last = None;
    let mut said = Vec::new();
    let output = child.stdout.take().map(BufReader::new).into_iter();
    for line in output.flat_map(BufRead::lines).map_while(Result::ok) {
        match serde_json::from_str::<OperationInfo>(&line) {
            Ok(info) => {
                watch(&info);
                last = Some(info);
            }
            Err(_) => said.push(line),
        }
    }
    let rest = child.wait_with_output().map_err(start)?;
    said.push(String::from_utf8_lossy(&rest.stderr).trim().to_owned());
    let exit = rest.status.code();
    match last {
        Some(last) if last.phase.is_terminal() => Ok(Crossing {
            from: order.from.name.to_owned(),
            to: order.to.to_owned(),
            mode: order.mode.to_owned(),
            began_ms,
            ended_ms: now_ms(),
            exit,
            last,
        }),
        Some(_) | None => Err(LabError::Refused {
            exit,
            said: said.join("\n").trim().to_owned(),
        }),
    }
}

impl Crossing {
    /// Whether it ended as asked.
    pub fn is_done(&self) -> bool {
        self.last.phase == Phase::Done
    }

    /// Begin and end of a phase in milliseconds since 1970, if it ran.
    pub fn phase(&self, phase: Phase) -> Option<(u64, u64)> {
        let report = self.last.report.as_ref()?;
        let time = report.phases.iter().find(|time| time.phase == phase)?;
        let took = Duration::from_secs_f64(time.took_ms.max(0.0) / 1e3);
        Some((time.began_ms, time.began_ms + took.as_millis() as u64))
    }

    /// Bytes that QEMU moved, over all VMs.
    pub fn bytes(&self) -> u64 {
        let report = self.last.report.iter();
        report
            .flat_map(|report| &report.vms)
            .map(|vm| vm.bytes)
            .sum()
    }

    /// The longest time that a VM stood still at its switchover.
    pub fn downtime(&self) -> Option<Duration> {
        let vms = self.last.report.iter().flat_map(|report| &report.vms);
        let times = vms.filter_map(|vm| vm.stopped_ms.or(vm.downtime_ms.map(|ms| ms as f64)));
        times
            .fold(None, |most: Option<f64>, ms| {
                Some(most.map_or(ms, |most| most.max(ms)))
            })
            .map(milliseconds)
    }

    /// The longest time that a VM waited, ready, for the others.
    pub fn longest_wait(&self) -> Duration {
        let vms = self.last.report.iter().flat_map(|report| &report.vms);
        milliseconds(vms.map(|vm| vm.waited_ms).fold(0.0, f64::max))
    }

    /// How long this VM stood still at its switchover, its wait for the others included.
    pub fn standstill_of(&self, name: &str) -> Duration {
        let mut vms = self.last.report.iter().flat_map(|report| &report.vms);
        let found = vms.find(|vm| vm.vm.as_str() == name);
        let stopped = found.and_then(|vm| vm.stopped_ms.or(vm.downtime_ms.map(|ms| ms as f64)));
        milliseconds(stopped.unwrap_or_default())
    }

    /// The longest stall of a rank in each switch, as the ranks measured it.
    pub fn switch_stalls(&self) -> Vec<Duration> {
        let switches = self.last.report.iter().flat_map(|report| &report.switches);
        switches
            .filter_map(|switch| switch.max_and_median())
            .map(|(longest, _)| Duration::from_micros(longest))
            .collect()
    }
}

fn milliseconds(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1e3)
}

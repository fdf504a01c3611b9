//! How operations and their reports look to people.

use std::fmt::Write;

use crate::api::model::{OperationInfo, VmProgress};
use crate::operation::Report;
use crate::operation::convergence::Convergence;
use crate::operation::effects::Streams;
use crate::operation::report::Traffic;

/// What `symvirt watch` redraws on a terminal.
pub(super) fn live(operation: &OperationInfo) -> Vec<String> {
    let transport = operation
        .progress
        .interconnect
        .map_or("-".to_owned(), |target| target.to_string());
    let mut lines = vec![
        format!("{}  {}", operation.id, operation.request),
        format!(
            "  phase {:<16} transport {transport:<10} {}",
            operation.phase.to_string(),
            operation.progress.doing
        ),
    ];
    lines.extend(
        operation
            .progress
            .vms
            .iter()
            .map(|vm| format!("  {}", vm_line(vm))),
    );
    if let Some(reason) = &operation.reason {
        lines.push(format!("  {reason}"));
    }
    lines
}

fn vm_line(vm: &VmProgress) -> String {
    let copy = &vm.copy;
    let sent = copy.total.saturating_sub(copy.remaining);
    let tenths = (10 * sent).checked_div(copy.total).unwrap_or(0).min(10) as usize;
    let slowed = match copy.throttle {
        0 => String::new(),
        percent => format!(", slowed by {percent} %"),
    };
    let bar: String = "#".repeat(tenths) + &"-".repeat(10 - tenths);
    format!(
        "{:<16} [{bar}] {:>9} sent, {:>9} left, dirties {:>9}/s, pass {}, {}{slowed}",
        vm.vm.as_str(),
        bytes(copy.transferred),
        bytes(copy.remaining),
        bytes(copy.dirty_rate),
        copy.passes,
        copy.state
    )
}

/// What `symvirt watch` prints where nothing can be redrawn, and what makes it worth a new line.
pub(super) fn line(operation: &OperationInfo) -> (String, String) {
    let mut line = format!("{} {}", operation.id, operation.phase);
    let mut fifths = Vec::new();
    for vm in &operation.progress.vms {
        let copy = &vm.copy;
        let sent = match copy.passes {
            0 | 1 => copy.total.saturating_sub(copy.remaining),
            _ => copy.total,
        };
        let percent = (100 * sent).checked_div(copy.total).unwrap_or(0).min(100);
        fifths.push(percent / 20);
        write!(line, "  {} {percent}%", vm.vm).expect("invariant: a string takes all");
        if copy.passes > 1 {
            write!(line, " pass {}", copy.passes).expect("invariant: a string takes all");
        }
    }
    let doing = &operation.progress.doing;
    if !doing.is_empty() {
        line.push_str("  ");
        line.push_str(doing);
    }
    (line, format!("{doing} {fifths:?}"))
}

/// The whole of an operation.
pub(super) fn operation(operation: &OperationInfo) -> String {
    let mut text = format!("{}  {}\n", operation.id, operation.request);
    let mut row = |name: &str, value: String| {
        writeln!(text, "  {name:<12} {value}").expect("invariant: a string takes all");
    };
    row("phase", operation.phase.to_string());
    if let Some(reason) = &operation.reason {
        row("reason", reason.clone());
    }
    if !operation.progress.doing.is_empty() && !operation.phase.is_terminal() {
        row("doing", operation.progress.doing.clone());
    }
    if let Some(report) = &operation.report {
        text.push_str(&measured(report));
    } else {
        for vm in &operation.progress.vms {
            row("vm", vm_line(vm));
        }
    }
    text
}

fn measured(report: &Report) -> String {
    let mut text = String::new();
    let mut row = |line: String| {
        text.push_str("  ");
        text.push_str(&line);
        text.push('\n');
    };
    row(format!(
        "total        {:.2} s",
        report.total_ms as f64 / 1000.0
    ));
    for phase in &report.phases {
        row(format!(
            "  {:<20} {:>10.1} ms",
            phase.phase.to_string(),
            phase.took_ms
        ));
    }
    for vm in &report.vms {
        let downtime = vm.downtime_ms.map_or("-".into(), |ms| format!("{ms} ms"));
        let stopped = vm.stopped_ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
        let host = vm.host.as_ref().map_or("?", |host| host.as_str());
        row(format!(
            "vm {:<10} on {host}: {} in {} passes, downtime {downtime} (stop to resume {stopped}), \
             stood ready {:.1} ms",
            vm.vm.as_str(),
            bytes(vm.bytes),
            vm.passes,
            vm.waited_ms
        ));
        if let Some(dropped) = vm.cache_dropped {
            row(format!("   page cache: {} dropped before", bytes(dropped)));
        }
        if let (Some(before), Some(after)) = (&vm.before, &vm.after) {
            row(format!(
                "   before: {}   after: {}",
                traffic(before),
                traffic(after)
            ));
        }
    }
    for line in report.convergence.iter().flat_map(converged) {
        row(line);
    }
    for switch in &report.switches {
        let to = switch
            .to
            .map_or("held".to_owned(), |target| target.to_string());
        let stall = switch
            .max_and_median()
            .map_or("no ranks".to_owned(), |(max, median)| {
                format!(
                    "{} ranks stood still {:.3} ms at most, {:.3} ms in the median",
                    switch.stalls.len(),
                    max as f64 / 1000.0,
                    median as f64 / 1000.0
                )
            });
        row(format!(
            "{:<12} to {to}: {:.1} ms, {stall}",
            switch.phase.to_string(),
            switch.took_ms
        ));
    }
    if let Some(interconnect) = report.interconnect {
        row(format!("transport    {interconnect}"));
    }
    for note in &report.notes {
        row(format!("note: {note}"));
    }
    text
}

/// What was foreseen of the copy, and what came.
fn converged(convergence: &Convergence) -> Vec<String> {
    let seconds = |ms: Option<u64>| ms.map(|ms| format!("{:.1} s", ms as f64 / 1000.0));
    let took = seconds(convergence.converged_ms).unwrap_or_else(|| "not".into());
    let foreseen = match (
        convergence.predicted_at_ms,
        seconds(convergence.predicted_ms),
    ) {
        (None, _) => "not foreseen".to_owned(),
        (at, Some(in_all)) => format!(
            "foreseen {in_all}, after {}",
            seconds(at).unwrap_or_default()
        ),
        (at, None) => format!("foreseen never, after {}", seconds(at).unwrap_or_default()),
    };
    let downtime = convergence
        .predicted_downtime_ms
        .map_or(String::new(), |ms| {
            format!("; then {ms} ms were foreseen for the rest")
        });
    let how = match convergence.streams {
        Streams::Plain | Streams::Postcopy => "",
        Streams::Zstd => ", compressed",
    };
    let slowed = match convergence.slowed {
        0 => String::new(),
        percent => format!(", the job slowed down by {percent} %"),
    };
    let mut lines = vec![format!(
        "copied       in {took}{how}{slowed} ({foreseen}){downtime}"
    )];
    lines.extend(
        convergence
            .diverged
            .iter()
            .map(|why| format!("diverged     {why}")),
    );
    lines
}

fn traffic(traffic: &Traffic) -> String {
    format!(
        "{} verbs device(s), {} by verbs, {} by netdevs",
        traffic.verbs_devices,
        bytes(traffic.verbs),
        bytes(traffic.netdevs)
    )
}

fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n:.0} B"),
    }
}

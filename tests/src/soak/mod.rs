//! `symvirt-soak`: storms over everything, program by program and MPI by MPI, until the time is
//! over; the table of it; and the page that is made from it.
//!
//! | module | holds |
//! |---|---|
//! | [`cases`] | what there is to run, and in which order |
//! | [`record`] | what became of it, as JSON and as a table |
//! | [`suites`] | public suites among switches, by their own rules |
//! | [`file`] | records on disk |
//! | [`page`] | `docs/compatibility.md` |

pub mod cases;
pub mod file;
pub mod page;
pub mod record;
pub mod suites;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::mpi::Mpi;
use cases::Case;
use record::{Record, Version};

/// Runs cases until the time is over, and says each one as it ends. Whether none failed.
///
/// # Errors
/// When the record cannot be written. A case that could not be run is a failure of its own.
pub fn run(minutes: u64, json: &Path) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let time = Duration::from_secs(60 * minutes);
    let mut record = Record::new(minutes, versions()?);
    for (number, case) in cases::endless().enumerate() {
        if begun.elapsed() >= time {
            break;
        }
        let ended = case.run();
        println!("{:>4}  {case}: {ended}", number + 1);
        record.note(&case, &ended);
        // After each, so that an interrupted soak has something to show.
        record.write(json)?;
    }
    print!("\n{record}");
    println!("written to {}", json.display());
    Ok(record.failures() == 0)
}

/// Which MPI and UCX each is.
fn versions() -> anyhow::Result<Vec<Version>> {
    let ask = |mpi: Mpi| {
        let job = mpi.job(1, "versions", &[], &[]);
        let outcome = job.run(Duration::from_secs(60))?;
        let line = outcome.ok_line("versions").map(str::to_owned);
        let line = line.ok_or_else(|| anyhow::anyhow!("{mpi}: {}", outcome.describe()))?;
        let said = line.trim_start_matches("OK versions ").to_owned();
        Ok(Version {
            mpi: mpi.to_string(),
            said,
        })
    };
    Mpi::ALL.into_iter().map(ask).collect()
}

/// Reads the records of a soak and, if there is one, of the suites, and writes the page.
///
/// # Errors
/// When a file does not do.
pub fn write_page(json: &Path, suites: &Path, page: &Path) -> anyhow::Result<()> {
    let record = Record::read(json)?;
    let suites = suites
        .exists()
        .then(|| suites::record::Record::read(suites))
        .transpose()?;
    std::fs::write(page, page::of(&record, suites.as_ref()))?;
    println!("{} is written", page.display());
    Ok(())
}

impl Case {
    fn run(&self) -> cases::Ended {
        std::panic::catch_unwind(|| self.try_run())
            .unwrap_or_else(|_| cases::Ended::failed("the case itself panicked, see above"))
    }
}

//! `symvirt-soak suites`: MPICH's own tests, switched all the time, with every MPI.
//!
//! ```text
//!  testlist ─► make program ─► switched ──passes──► counted
//!                                  └─fails─► bare, also over TCP ──fails──► without us, too
//!                                              └─passes─► took too long: once more, longer ─passes─► slow
//!                                                              └─► switched and bare again, three times: ours
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`source`] | fetches the suite, as Debian's source package |
//! | [`testlist`] | its lists: programs, ranks, options |
//! | [`build`] | its programs, compiled by an MPI |
//! | [`verdict`] | its rules: what is a pass |
//! | [`run`] | one test, with and without switches |
//! | [`record`] | what became of all of them |

pub mod build;
pub mod record;
pub mod run;
pub mod source;
pub mod testlist;
pub mod verdict;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::mpi::Mpi;
use build::Built;
use record::Record;
use run::Fate;
use testlist::Test;

/// What of the suites is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Keys of MPIs; all if there is none.
    pub mpis: Vec<String>,
    /// A part of the name of a test, which is its folder, a slash and its program.
    pub only: Option<String>,
    /// No further test is begun after this.
    pub time: Duration,
    /// For one run of a test; the suite's own limit may be shorter.
    pub limit: Duration,
    /// Of the order of the tests.
    pub seed: u64,
    /// Whether the record is gone on with, without the tests that it has.
    pub resume: bool,
}

/// Runs tests until the time is over or all were run, and says each one as it ends. Whether none
/// failed only with us.
///
/// # Errors
/// When the suite cannot be had, or the record not be written.
pub fn run(wanted: &Wanted, json: &Path) -> anyhow::Result<bool> {
    let begun = Instant::now();
    println!("--seed {}", wanted.seed);
    let mut record = match wanted.resume {
        true => Record::read(json)?,
        false => Record::default(),
    };
    let mut all = listed(wanted)?;
    all.retain(|(mpi, _, test)| !record.has(&mpi.to_string(), &test.name()));
    println!("{} tests are left", all.len());
    for (mpi, built, test) in &all {
        if begun.elapsed() >= wanted.time {
            break;
        }
        let fate = run::run(*mpi, built, test, wanted.limit)?;
        println!("{mpi}: {}: {}", test.name(), told(&fate));
        let (mpi, name) = (mpi.to_string(), test.name());
        record.note(&test.folder, &mpi, &name, &fate);
        // After each, so that an interrupted run has something to show.
        record.write(json)?;
    }
    print!("\n{record}");
    println!("written to {}", json.display());
    Ok(record.ours() == 0)
}

/// All that is wanted, in the order of the seed: a short run meets something of everything.
fn listed(wanted: &Wanted) -> anyhow::Result<Vec<(Mpi, std::rc::Rc<Built>, Test)>> {
    let is_wanted =
        |mpi: &Mpi| wanted.mpis.is_empty() || wanted.mpis.iter().any(|key| key == mpi.key());
    let mpis: Vec<Mpi> = Mpi::ALL.into_iter().filter(is_wanted).collect();
    anyhow::ensure!(!mpis.is_empty(), "no MPI is called {:?}", wanted.mpis);
    let mut all = Vec::new();
    for mpi in mpis {
        let built = std::rc::Rc::new(Built::by(mpi)?);
        let tests = built.tests()?.into_iter().filter(|test| {
            let only = wanted.only.as_deref().unwrap_or_default();
            test.name().contains(only)
        });
        all.extend(tests.map(|test| (mpi, built.clone(), test)));
    }
    all.sort_by_key(|(mpi, _, test)| {
        let mut hash = DefaultHasher::new();
        (wanted.seed, mpi.key(), test).hash(&mut hash);
        hash.finish()
    });
    Ok(all)
}

fn told(fate: &Fate) -> String {
    match fate {
        Fate::Passed(switches) => format!("{switches} switches"),
        Fate::Slow(switches) => format!("{switches} switches, and longer than the limit"),
        Fate::FailsBare => "fails without us, too".to_owned(),
        Fate::NotBuilt => "does not compile".to_owned(),
        Fate::Ours(why) => format!("FAILED: {why}"),
    }
}

//! What there is to run: every program with every MPI, under every setting.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::debian;
use crate::mpi::{Job, Mpi};
use crate::setting::Setting;
use crate::storm::{SECONDS, verdict};

/// Programs of `tests/apps`.
const PROGRAMS: [&str; 26] = [
    "any_source",
    "bulk",
    "cancelled",
    "collectives",
    "comm_churn",
    "connect",
    "exclusive",
    "halo",
    "long_lived",
    "many_syncs",
    "matched_probe",
    "partitioned",
    "persistent",
    "preposted",
    "rendezvous",
    "seldom",
    "sessions",
    "sizes",
    "spawn",
    "strided",
    "sync_send",
    "threads",
    "unexpected",
    "waves",
    "window",
    "windows",
];

const LIMIT: Duration = Duration::from_secs(120);

/// Something to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Of `tests/apps`.
    Ours(&'static str),
    /// `tests/apps/python/objects.py`.
    Objects,
    /// Of Debian.
    Debian(debian::Program),
}

impl Subject {
    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Ours(program) => program,
            Subject::Objects => "objects (mpi4py)",
            Subject::Debian(program) => program.name(),
        }
    }
}

/// One run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// What.
    pub subject: Subject,
    /// With which MPI.
    pub mpi: Mpi,
    /// On how many ranks.
    pub ranks: u32,
    /// How it is switched.
    pub setting: Setting,
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Switches that took effect.
    pub switches: u64,
    /// Switches that were abandoned without effect.
    pub abandoned: u64,
    /// Why the run failed.
    pub failure: Option<String>,
    /// The same job failed by itself, too.
    pub fails_alone: bool,
}

impl Ended {
    /// A run that told nothing else.
    pub fn failed(why: impl Into<String>) -> Ended {
        Ended {
            failure: Some(why.into()),
            ..Ended::default()
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} switches", self.switches)?;
        match &self.failure {
            Some(_) if self.fails_alone => write!(f, ", fails by itself, too"),
            Some(why) => write!(f, ", FAILED: {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, setting) = (self.subject.name(), self.setting.name);
        write!(
            f,
            "{subject}, {} ranks of {}, {setting}",
            self.ranks, self.mpi
        )
    }
}

impl Case {
    pub(super) fn try_run(&self) -> Ended {
        let (program, job) = match self.subject {
            Subject::Debian(program) => return self.compare(program),
            Subject::Ours(program) => (program, self.job(program)),
            Subject::Objects => {
                let (arguments, environment) = (["--seconds", SECONDS], self.setting.environment);
                let job = self
                    .mpi
                    .python(self.ranks, "objects", &arguments, environment);
                ("objects", job)
            }
        };
        let (outcome, report) = match self.setting.rehearsal(self.mpi).run(&job.words, LIMIT) {
            Err(error) => return Ended::failed(error.to_string()),
            Ok(ended) => ended,
        };
        let failure = verdict(program, &outcome, &report, 1).err();
        Ended {
            switches: report.switches,
            abandoned: report.abandoned.len() as u64,
            fails_alone: failure.is_some() && fails_alone(program, &job),
            failure,
        }
    }

    fn job(&self, program: &str) -> Job {
        let environment = self.setting.environment;
        self.mpi
            .job(self.ranks, program, &["--seconds", SECONDS], environment)
    }

    fn compare(&self, program: debian::Program) -> Ended {
        match program.compare(&self.setting.rehearsal(self.mpi), self.setting.environment) {
            Err(error) => Ended::failed(format!("{error:#}")),
            Ok(compared) => Ended {
                switches: compared.report.switches,
                abandoned: compared.report.abandoned.len() as u64,
                failure: compared.verdict(1).err(),
                // It is compared with what it does by itself.
                fails_alone: false,
            },
        }
    }
}

/// Whether a job that failed among switches does so without, in the same environment.
fn fails_alone(program: &str, job: &Job) -> bool {
    let ended = job.run(LIMIT);
    ended.is_ok_and(|alone| !alone.succeeded() || alone.ok_line(program).is_none())
}

/// Whether an MPI does by itself what a program of ours asks for.
fn is_able(mpi: Mpi, program: &str) -> bool {
    match program {
        // Debian's MPICHs refuse both.
        "spawn" | "connect" => !matches!(mpi, Mpi::Mpich40 | Mpi::Mpich42),
        // Of MPI 4.
        "partitioned" => mpi != Mpi::OpenMpi4,
        // Open MPI has sessions, but not over UCX.
        "sessions" => !mpi.is_open_mpi(),
        // One time in twelve it hangs.
        "persistent" => mpi != Mpi::Mpich40,
        _ => true,
    }
}

/// Every subject with every MPI that it is there for.
fn pairs() -> Vec<(Subject, Mpi)> {
    let ours = PROGRAMS.iter().flat_map(|program| {
        let able = Mpi::ALL.into_iter().filter(|mpi| is_able(*mpi, program));
        able.map(|mpi| (Subject::Ours(program), mpi))
    });
    let objects = [Mpi::OpenMpiWheel, Mpi::MpichWheel].map(|mpi| (Subject::Objects, mpi));
    let debian = debian::Program::ALL.map(|it| (Subject::Debian(it), Mpi::OpenMpi4));
    ours.chain(objects).chain(debian).collect()
}

/// All pairs in a random order that is always the same; then again, under other settings and on
/// other numbers of ranks, until every pair has met every setting; and so on.
pub fn endless() -> impl Iterator<Item = Case> {
    let settings: Vec<Setting> = std::iter::once(Setting::USUAL)
        .chain(Setting::PROTOCOLS)
        .collect();
    (0_usize..).flat_map(move |pass| {
        let mut order: Vec<(usize, (Subject, Mpi))> = pairs().into_iter().enumerate().collect();
        order.sort_by_key(|(number, _)| {
            let mut hash = DefaultHasher::new();
            (pass, number).hash(&mut hash);
            hash.finish()
        });
        let settings = settings.clone();
        order.into_iter().map(move |(number, (subject, mpi))| Case {
            subject,
            mpi,
            ranks: ranks(subject, mpi, pass + number),
            setting: settings[(number + pass) % settings.len()],
        })
    })
}

fn ranks(subject: Subject, mpi: Mpi, turn: usize) -> u32 {
    // Open MPI spins for window locks without a pause: with more ranks than processors that takes
    // minutes also without the library.
    let spins = matches!(subject, Subject::Ours("windows" | "exclusive")) && mpi.is_open_mpi();
    let alone = matches!(subject, Subject::Debian(_)) || spins;
    if alone || turn.is_multiple_of(2) {
        2
    } else {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_meets_every_setting_in_as_many_passes_as_there_are_settings() {
        let (pairs, settings) = (pairs(), 1 + Setting::PROTOCOLS.len());
        let cases: Vec<Case> = endless().take(pairs.len() * settings).collect();
        for (subject, mpi) in pairs {
            let of_pair = cases
                .iter()
                .filter(|it| (it.subject, it.mpi) == (subject, mpi));
            let mut met: Vec<&str> = of_pair.map(|case| case.setting.name).collect();
            met.sort_unstable();
            met.dedup();
            assert_eq!(met.len(), settings, "{subject:?} {mpi}");
        }
    }
}

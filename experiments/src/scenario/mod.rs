//! `symvirt-lab test`: promises that only real guests can keep.
//!
//! Each scenario begins with all guests at home (on host a, HCAs plugged, links active, no job);
//! if the one before left them otherwise, the bed is put up anew. A run without a name leaves out
//! the long ones.
//!
//! | module | promises about |
//! |---|---|
//! | [`convergence`] | gangs that dirty memory faster than it is copied |
//! | [`crossing`] | live and held crossings, forth and back, slow links |
//! | [`degraded`] | HCAs that come up too late |
//! | [`fault`] | cancel, foreign holders, killed ranks |
//! | [`killed`] | daemons killed in mid-crossing |
//! | [`faults`] | the same in every phase, without end; a record to go on with |
//! | [`postcopy`] | VMs that cross before their memory |
//! | [`soak`] | crossings without end |
//! | [`refusal`] | orders that are refused before anything is touched |

mod convergence;
mod crossing;
mod degraded;
mod fault;
pub mod faults;
mod killed;
mod postcopy;
mod refusal;
mod soak;

pub use soak::soak;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use symvirt_host::api::model::{VmInfo, VmState};

use crate::command;
use crate::job::{Job, Mpi, Outcome};
use crate::lab::{Lab, Plan, words};
use crate::traffic::{Traffic, Transport};

/// Time for a job to be seen communicating.
const SHOWS: Duration = Duration::from_secs(120);

/// A promise and what keeps it.
struct Scenario {
    name: &'static str,
    run: fn(&Bed) -> anyhow::Result<()>,
}

/// What a scenario works with.
struct Bed {
    lab: Lab,
    traffic: Traffic,
}

/// What gates.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "orders_that_cannot_be_carried_out_are_refused_and_change_nothing",
        run: refusal::orders_that_cannot_be_carried_out,
    },
    Scenario {
        name: "a_job_crosses_live_and_returns_with_every_byte_verified",
        run: crossing::live,
    },
    Scenario {
        name: "a_job_crosses_held_and_returns_with_every_byte_verified",
        run: crossing::held,
    },
    Scenario {
        name: "windows_cross_live_and_held_with_every_element_verified",
        run: crossing::windows,
    },
    Scenario {
        name: "mpich_crosses_live_and_held_with_every_byte_and_element_verified",
        run: crossing::mpich,
    },
    Scenario {
        name: "a_link_that_stays_down_after_plug_costs_the_job_nothing",
        run: crossing::slow_link,
    },
    Scenario {
        name: "a_rank_that_only_computes_does_not_delay_the_crossing",
        run: crossing::computing,
    },
    Scenario {
        name: "a_job_whose_hca_came_up_too_late_is_moved_onto_it_later",
        run: degraded::retried,
    },
    Scenario {
        name: "a_gang_whose_job_ended_on_fallback_starts_the_next_on_the_hca_it_comes_to",
        run: crossing::between_jobs,
    },
    Scenario {
        name: "a_cancelled_crossing_is_rolled_back_and_the_job_is_on_its_hca_again",
        run: fault::cancelled,
    },
    Scenario {
        name: "a_foreign_holder_of_the_hca_is_named_and_the_job_keeps_its_hca",
        run: fault::foreign_holder,
    },
    Scenario {
        name: "a_daemon_killed_in_mid_crossing_is_followed_by_one_that_ends_it",
        run: killed::daemons,
    },
    Scenario {
        name: "a_rank_killed_in_mid_quiesce_fails_the_job_and_hangs_nothing",
        run: fault::killed_rank,
    },
];

/// Run by name only: they take minutes, and what they show is simulated, or shown by others, in what
/// gates.
const LONG: &[Scenario] = &[
    Scenario {
        name: "collectives_cross_live_with_every_element_verified",
        run: crossing::collectives,
    },
    Scenario {
        name: "a_job_that_dirties_faster_than_it_is_copied_is_rolled_back_or_held_as_asked",
        run: convergence::diverges,
    },
    Scenario {
        name: "a_job_that_dirties_faster_than_it_is_copied_crosses_live_slowed_down",
        run: convergence::slowed,
    },
    Scenario {
        name: "a_link_that_breaks_while_memory_follows_is_joined_again",
        run: postcopy::broken_link,
    },
    Scenario {
        name: "a_qemu_killed_while_memory_follows_takes_its_vm_with_it_and_nothing_waits",
        run: postcopy::killed,
    },
    Scenario {
        name: "page_caches_are_dropped_and_not_copied",
        run: convergence::page_cache,
    },
    Scenario {
        name: "copies_that_share_a_bandwidth_keep_to_it_and_are_ready_together",
        run: convergence::shared,
    },
    Scenario {
        name: "a_copy_may_be_compressed_and_its_vms_slowed_down",
        run: convergence::compressed,
    },
];

/// Runs the scenarios whose name contains `filter`; `Ok(true)` if all kept their promise.
///
/// # Errors
/// If the bed cannot be put up or taken down.
pub fn run(filter: &str) -> anyhow::Result<bool> {
    let long = LONG.iter().filter(|_| !filter.is_empty());
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .chain(long)
        .filter(|scenario| scenario.name.contains(filter))
        .collect();
    println!("running {} tests", chosen.len());
    let (mut passed, mut failed): (u32, Vec<(&str, String)>) = (0, Vec::new());
    let mut bed = None;
    for scenario in &chosen {
        let begun = Instant::now();
        let result = at_home(bed.take()).and_then(|at_home| {
            let result = (scenario.run)(&at_home);
            match result {
                Ok(()) => bed = Some(at_home),
                Err(error) => {
                    println!("logs are kept in {}", at_home.lab.keep_logs()?.display());
                    let words = words::last_words(at_home.lab.directory()).join("\n");
                    bail!("{error:#}\n{words}");
                }
            }
            Ok(())
        });
        let took = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("test {} ... ok ({took:.0} s)", scenario.name);
                passed += 1;
            }
            Err(error) => {
                println!("test {} ... FAILED ({took:.0} s)\n{error:#}", scenario.name);
                failed.push((scenario.name, format!("{error:#}")));
            }
        }
    }
    if let Some(bed) = bed {
        let Bed { lab, traffic } = bed;
        drop(traffic);
        let left = lab.down()?;
        if left.is_empty() {
            passed += 1;
        } else {
            failed.push(("nothing_is_left_behind", left.join(", ")));
        }
    }
    // Once more, at the end: of a long log often only that is kept.
    for (name, why) in &failed {
        println!("failed: {name}\n{why}");
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured",
        failed.len()
    );
    Ok(failed.is_empty())
}

/// A bed with all guests at home: the given one if it is, else a new one.
fn at_home(bed: Option<Bed>) -> anyhow::Result<Bed> {
    if let Some(bed) = bed {
        match bed.settle() {
            Ok(()) => return Ok(bed),
            Err(error) => println!("a new test bed, because {error:#}"),
        }
    }
    let lab = Lab::up(&Plan::crossing(), &|line| println!("  {line}"))?;
    let traffic = Traffic::observe(&lab.guests)?;
    let bed = Bed { lab, traffic };
    bed.settle()?;
    Ok(bed)
}

impl Bed {
    /// All guests run on host a, with active links, and no job is left.
    fn settle(&self) -> anyhow::Result<()> {
        let vms = self.vms("a")?;
        let home = vms.len() == self.lab.guests.len()
            && vms
                .iter()
                .all(|vm| vm.state == VmState::Running && vm.hca.is_some());
        if !home {
            bail!("the guests are not all on a with their HCAs: {vms:?}");
        }
        for guest in &self.lab.guests {
            guest.run("rm -f /run/symvirt/link-down; ! pgrep -x 'mpirun|mpiexec.hydra'")?;
            guest.wait_until(
                "rdma link show | grep -q 'state ACTIVE'",
                Duration::from_secs(60),
            )?;
        }
        Ok(())
    }

    /// The VMs of a host, as its daemon lists them.
    fn vms(&self, host: &str) -> anyhow::Result<Vec<VmInfo>> {
        let host = self.lab.host(host).context("no such host")?;
        let said = command::output(host.symvirt().args(["--json", "vm", "list"]))?;
        serde_json::from_str(&said).with_context(|| format!("understand {said}"))
    }

    /// Starts a job in all guests and waits until it communicates over RDMA.
    fn job(&self, program: &str) -> anyhow::Result<Job> {
        self.job_with(Mpi::OpenMpi, program)
    }

    /// The same with the MPI of choice.
    fn job_with(&self, mpi: Mpi, program: &str) -> anyhow::Result<Job> {
        let job = Job::start_app(&self.lab.guests, mpi, program)?;
        match self.traffic.wait_for(Transport::Rdma, SHOWS) {
            Ok(()) => Ok(job),
            Err(seen) => bail!(
                "{program} was to begin over RDMA, seen: {seen:?}; it says: {}",
                job.output().join(
                    "
"
                )
            ),
        }
    }

    /// The job is seen to communicate, from now on, over `transport`.
    fn expect(&self, transport: Transport) -> anyhow::Result<()> {
        let result = self.traffic.wait_for(transport, SHOWS);
        result.map_err(|seen| {
            anyhow::anyhow!("the job was to communicate over {transport}, seen: {seen:?}")
        })
    }
}

/// The job ends well, and says so itself.
fn expect_verified(job: &mut Job, limit: Duration) -> anyhow::Result<Outcome> {
    let outcome = job.wait(limit).context("the job does not end")?;
    let said = outcome.output.iter().any(|line| line.starts_with("OK "));
    if outcome.success && said {
        return Ok(outcome);
    }
    bail!(
        "the job ended {}: {}",
        outcome.status,
        outcome.output.join("\n")
    )
}

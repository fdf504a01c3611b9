//! Who cannot be moved is told why, and which setting mends it; who does not answer is named, with
//! where it stands.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use symvirt_tests::job::{self, Outcome};
use symvirt_tests::rehearsal::{Rehearsal, mpirun, mpirun_mpich};
use symvirt_tests::storm::{alone, rehearse};
use symvirt_tests::{apps, built};

const LIMIT: Duration = Duration::from_secs(60);

/// `mpirun` with the components that are named, and nothing else set.
fn openmpi(components: &[(&str, &str)]) -> Vec<String> {
    let mut words = vec!["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe"];
    for (name, value) in components {
        words.extend(["--mca", name, value]);
    }
    words.extend(["-n", "2"]);
    let program = apps::program("openmpi/halo").to_string_lossy().into_owned();
    let words = words.into_iter().map(str::to_owned);
    let arguments = ["--seconds", "4"].map(str::to_owned);
    words.chain([program]).chain(arguments).collect()
}

fn doctor(environment: &[(&str, &str)], job: &[String]) -> (Outcome, Value) {
    let _turn = alone();
    let release = built::release();
    let mut command = Command::new(&release.guest);
    command
        .env("SYMVIRT_LIB", &release.library)
        .env("UCX_LOG_LEVEL", "error")
        .envs(environment.iter().copied())
        .args(["doctor", "--json", "--watch", "20s"]);
    if !job.is_empty() {
        command.arg("--").args(job);
    }
    let outcome = job::run(&mut command, LIMIT).expect("run the doctor");
    // The job writes to the same output before.
    let json = &outcome.stdout[outcome.stdout.find("\n{").map_or(0, |at| at + 1)..];
    let diagnosis = serde_json::from_str(json)
        .unwrap_or_else(|error| panic!("{error}: {}", outcome.describe()));
    (outcome, diagnosis)
}

/// A finding that contains all of the words.
fn is_found(diagnosis: &Value, words: &[&str]) -> bool {
    let findings = diagnosis["findings"].as_array().into_iter().flatten();
    let mut texts = findings.map(|finding| format!("{} {}", finding["what"], finding["mend"]));
    texts.any(|text| words.iter().all(|word| text.contains(word)))
}

#[test]
fn the_doctor_finds_nothing_in_a_job_over_ucx() {
    let job = mpirun(2, "halo", &["--seconds", "4"], &[]);
    let (outcome, diagnosis) = doctor(&[], &job);
    assert_eq!(diagnosis["movable"], true, "{}", outcome.describe());
    assert!(outcome.succeeded(), "{}", outcome.describe());
    let processes = diagnosis["job"]["processes"].as_array().expect("a list");
    assert_eq!(processes.len(), 2, "{diagnosis}");
    for process in processes {
        assert!(
            process["ucx"]
                .as_str()
                .is_some_and(|version| version.starts_with("1."))
        );
        assert_eq!(process["preloaded"], true);
    }
    assert!(
        diagnosis["job"]["switches"].as_u64() >= Some(2),
        "{diagnosis}"
    );
    let versions = diagnosis["guest"]["mpi"].to_string();
    assert!(
        versions.contains("Open MPI") && versions.contains("4.1"),
        "{versions}"
    );
}

#[test]
fn the_doctor_finds_a_job_that_sends_past_ucx() {
    let job = openmpi(&[("pml", "ob1"), ("btl", "tcp,self")]);
    let (outcome, diagnosis) = doctor(&[], &job);
    let words = [
        "halo",
        "pml/ob1 over self, tcp",
        "past UCX",
        "OMPI_MCA_pml=ucx",
    ];
    assert!(is_found(&diagnosis, &words), "{}", outcome.describe());
    assert_eq!(diagnosis["movable"], false);
    assert!(!outcome.succeeded());
    // Told while the job ran, too.
    assert!(
        outcome.stderr.contains("past UCX"),
        "{}",
        outcome.describe()
    );
}

#[test]
fn ranks_that_mpich_lets_share_memory_can_be_moved() {
    let job: Vec<String> = mpirun_mpich(2, "halo", &["--seconds", "4"])
        .into_iter()
        .map(|word| {
            if word == "MPIR_CVAR_NOLOCAL" {
                "UNUSED".to_owned()
            } else {
                word
            }
        })
        .collect();
    let (outcome, diagnosis) = doctor(&[], &job);
    // Its processes make a UCX context all the same: they can be moved, and are.
    assert_eq!(diagnosis["movable"], true, "{}", outcome.describe());
}

#[test]
fn the_doctor_finds_what_the_user_has_set_in_the_way() {
    let (outcome, diagnosis) = doctor(&[("OMPI_MCA_pml", "ob1")], &[]);
    let words = ["OMPI_MCA_pml=ob1 is set", "OMPI_MCA_pml=ucx"];
    assert!(is_found(&diagnosis, &words), "{}", outcome.describe());
    assert!(!outcome.succeeded());
    let (outcome, diagnosis) = doctor(&[], &[]);
    assert!(outcome.succeeded(), "{}", outcome.describe());
    assert_eq!(diagnosis["findings"], Value::Array(Vec::new()));
}

#[test]
fn the_doctor_tells_why_a_job_refuses() {
    let program = apps::program("ucp/streams").to_string_lossy().into_owned();
    let job = [program, "--seconds".to_owned(), "3".to_owned()];
    let (outcome, diagnosis) = doctor(&[], &job);
    let words = ["no switch took place", "vetoed", "streams"];
    assert!(is_found(&diagnosis, &words), "{}", outcome.describe());
}

#[test]
fn a_rehearsal_says_what_goes_around_ucx() {
    let job = openmpi(&[("pml", "ob1"), ("btl", "tcp,self")]);
    let (outcome, report) = rehearse("halo", &Rehearsal::default(), &job);
    assert!(!report.passed);
    let told = [
        "cannot be moved: halo: Open MPI sends by pml/ob1",
        "OMPI_MCA_pml=ucx",
    ];
    for words in told {
        assert!(outcome.stderr.contains(words), "{}", outcome.describe());
    }
}

/// As in a guest: an agent listens, `exec` starts the job, nobody watches it.
#[test]
fn a_job_that_goes_around_ucx_is_told_so_at_its_start_and_once() {
    let _turn = alone();
    let release = built::release();
    let folder = std::env::temp_dir().join(format!("symvirt-told-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make a folder");
    let socket = folder.join("agent.sock");
    let mut agent = Command::new(&release.guest)
        .args(["agent", "--socket"])
        .arg(&socket)
        .spawn()
        .expect("start the agent");
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let exec = |job: &[String]| {
        let mut command = Command::new(&release.guest);
        command
            .env("SYMVIRT_LIB", &release.library)
            .env("SYMVIRT_AGENT_SOCKET", &socket)
            .args(["exec", "--"])
            .args(job);
        job::run(&mut command, LIMIT).expect("run the job")
    };
    let around = exec(&openmpi(&[("pml", "ob1"), ("btl", "tcp,self")]));
    let through = exec(&mpirun(2, "halo", &["--seconds", "4"], &[]));
    agent.kill().expect("end the agent");
    agent.wait().expect("wait for the agent");
    std::fs::remove_dir_all(&folder).expect("remove the folder");
    let told = |outcome: &Outcome| {
        let lines = outcome.stderr.lines();
        lines
            .filter(|line| line.contains("this job cannot be moved"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(
        around.succeeded() && through.succeeded(),
        "{}",
        around.describe()
    );
    let [line] = &told(&around)[..] else {
        panic!("{}", around.describe())
    };
    for words in [
        "halo: Open MPI sends by pml/ob1 over self, tcp",
        "set OMPI_MCA_pml=ucx",
    ] {
        assert!(line.contains(words), "{line}");
    }
    assert_eq!(
        told(&through),
        Vec::<String>::new(),
        "{}",
        through.describe()
    );
}

#[test]
fn a_rank_that_is_stopped_is_named_with_where_it_stands() {
    let job = mpirun(2, "stopped", &["--seconds", "2"], &[]);
    let rehearsal = Rehearsal::default().round_timeout(Duration::from_secs(4));
    let (outcome, report) = rehearse("stopped", &rehearsal, &job);
    assert!(!report.passed);
    let words = [
        "no answer during",
        "rank 1 (stopped, pid ",
        "guest ",
        "stands: thread ",
        "stopped T in do_signal_stop",
        "symvirt-switch T",
    ];
    let named = |reason: &String| words.iter().all(|word| reason.contains(word));
    assert!(report.failed.iter().any(named), "{}", outcome.describe());
    assert!(
        report
            .failed
            .iter()
            .all(|reason| !reason.contains("rank 0")),
        "{:?}",
        report.failed
    );
}

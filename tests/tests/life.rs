//! The rest of a job's life in the storm: processes that join and part, threads that come and go,
//! signals, children, sessions, requests that are used again and again; switches that are cancelled
//! or follow each other without a pause; ranks that give up.
//!
//! MPICH 4.0.2 refuses MPI_Comm_spawn and ports; other MPIs than Open MPI 4.1 and MPICH 4.0 are met
//! in `trixie.rs` and `wheels.rs`.

use std::time::Duration;

use symvirt_tests::apps;
use symvirt_tests::rehearsal::{Rehearsal, mpirun, mpirun_mpich};
use symvirt_tests::storm::{FEWEST, SECONDS, alone, judge, rehearse, survives_as};

const LIMIT: Duration = Duration::from_secs(60);

fn survives(program: &str, ranks: u32, arguments: &[&str]) {
    let all = [&["--seconds", SECONDS], arguments].concat();
    survives_as(program, &mpirun(ranks, program, &all, &[]), FEWEST);
}

fn survives_on_mpich(program: &str, arguments: &[&str]) {
    let all = [&["--seconds", SECONDS], arguments].concat();
    survives_as(program, &mpirun_mpich(2, program, &all), FEWEST);
}

/// MPICH 4.0.2 has no ports over UCX.
#[test]
fn groups_that_meet_by_a_port_talk_and_part() {
    survives("connect", 2, &[]);
    survives("connect", 4, &[]);
}

/// As many switches are abandoned as processes come and go. Few processes: one in fifty never gets
/// through `PMIx_Init`, and then all begins anew.
#[test]
fn ranks_that_a_job_starts_join_its_switches_and_part() {
    survives("spawn", 1, &["--rounds", "5"]);
    survives("spawn", 2, &["--rounds", "3"]);
}

/// MPICH 4.0.2 hangs in this program by itself, one time in twelve.
#[test]
fn persistent_requests_work_in_every_epoch() {
    survives("persistent", 2, &[]);
    survives("persistent", 4, &[]);
}

#[test]
fn partitions_arrive_where_they_belong() {
    survives_on_mpich("partitioned", &[]);
}

#[test]
fn a_job_of_sessions_is_switched_without_mpi_init() {
    survives_on_mpich("sessions", &[]);
}

#[test]
fn threads_may_come_and_go_while_the_main_thread_calls_mpi() {
    survives("waves", 2, &["--level", "1"]);
    survives_on_mpich("waves", &["--level", "1"]);
}

#[test]
fn threads_may_come_and_go_and_call_mpi_in_turns() {
    survives("waves", 2, &["--level", "2"]);
    survives_on_mpich("waves", &["--level", "2"]);
}

/// Fewer at once over Open MPI, whose own lock 12 threads on two processors do not get past.
#[test]
fn threads_may_come_and_go_and_call_mpi_at_once() {
    survives("waves", 2, &["--level", "3", "--threads", "3"]);
    survives_on_mpich("waves", &["--level", "3"]);
}

#[test]
fn signal_handlers_never_run_on_a_helper() {
    survives("signals", 2, &[]);
    survives_on_mpich("signals", &[]);
}

/// Each that uses UCX joins the gang in the middle of the run: few switches are to be expected.
#[test]
fn children_run_beside_the_job_and_may_use_ucx() {
    let user = apps::program("ucp/forms");
    survives("children", 2, &["--user", &user.to_string_lossy()]);
}

#[test]
fn endpoints_to_processes_that_left_keep_nobody_from_switching() {
    let program = "ucp/left";
    let job = [apps::program(program).to_string_lossy().into_owned()];
    let (outcome, report) = rehearse(program, &Rehearsal::default(), &job);
    judge(program, &outcome, &report, 2 * FEWEST);
}

/// A switch is cancelled 0, 1, 2 … ms after its beginning: in whatever step that is.
#[test]
fn cancelled_switches_leave_no_trace() {
    for (program, order) in [
        ("halo", "mbb"),
        ("rendezvous", "both"),
        ("sync_send", "both"),
    ] {
        let rehearsal = Rehearsal::default().every(Duration::from_millis(20));
        let rehearsal = rehearsal.order(order).cancel_every(2);
        let job = mpirun(2, program, &["--seconds", "4"], &[]);
        let (outcome, report) = rehearse(program, &rehearsal, &job);
        judge(program, &outcome, &report, FEWEST);
        let is_cancelled = |reason: &&String| reason.contains("cancel");
        let cancelled = report.abandoned.iter().filter(is_cancelled).count();
        assert!(cancelled > 0, "{:?}", report.abandoned);
    }
}

/// A pause in which its ranks stand still ends when a switch begins.
#[test]
fn a_job_that_is_slowed_down_is_switched_as_others_are() {
    for program in ["halo", "sync_send"] {
        let job = mpirun(2, program, &["--seconds", SECONDS], &[]);
        let (outcome, report) = rehearse(program, &Rehearsal::default().slow(60), &job);
        judge(program, &outcome, &report, FEWEST);
    }
}

/// It dies milliseconds to tenths of a second after the beginning of a switch: in any step. The next one
/// undoes what nobody has carried out, and goes on with the rest.
#[test]
fn a_job_outlives_its_coordinator_in_the_middle_of_switches() {
    for (program, order) in [
        ("halo", "both"),
        ("rendezvous", "both"),
        ("sync_send", "both"),
        ("windows", "both"),
    ] {
        let rehearsal = Rehearsal::default().every(Duration::from_millis(20));
        let rehearsal = rehearsal.order(order).forget_every(2);
        let job = mpirun(2, program, &["--seconds", "6"], &[]);
        let (outcome, report) = rehearse(program, &rehearsal, &job);
        // Many are undone, and so a busy machine does not bring many to their end.
        judge(program, &outcome, &report, FEWEST / 3);
        assert!(report.forgotten >= FEWEST / 2, "{program}: {report:?}");
        let undone = |reason: &&String| reason.contains("coordinator was lost");
        let undone = report.abandoned.iter().filter(undone).count();
        println!(
            "{program}: {} coordinators lost, {undone} switches undone, {} done",
            report.forgotten, report.switches
        );
    }
}

/// It dies in any step of a switch, with every message under way to it and from it. Ranks that stand
/// still wait for the next one: what was decided without them is told again. One job is switched until
/// it ends: a farewell that is lost with an agent holds up a switch, and nobody for long.
#[test]
fn a_job_outlives_its_agent_in_the_middle_of_switches() {
    for (program, order, seconds) in [
        ("halo", "both", 60),
        ("rendezvous", "mbb", 6),
        ("sync_send", "bbm", 6),
        ("windows", "mbb", 6),
    ] {
        let rehearsal = Rehearsal::default().every(Duration::from_millis(20));
        let rehearsal = rehearsal.order(order).lose_agent_every(2);
        let rehearsal = rehearsal.duration(Duration::from_secs(seconds));
        let job = mpirun(2, program, &["--seconds", "9"], &[]);
        let (outcome, report) = rehearse(program, &rehearsal, &job);
        judge(program, &outcome, &report, FEWEST / 2);
        assert!(report.agents_lost > 1, "{program}: {report:?}");
        let undone = |reason: &&String| reason.contains("agent");
        let undone = report.abandoned.iter().filter(undone).count();
        println!(
            "{program}: {} agents lost, {undone} switches undone, {} done",
            report.agents_lost, report.switches
        );
    }
}

#[test]
fn switches_may_follow_each_other_without_a_pause() {
    for program in ["halo", "unexpected", "windows"] {
        let rehearsal = Rehearsal::default().every(Duration::from_millis(1));
        let job = mpirun(2, program, &["--seconds", SECONDS], &[]);
        let (outcome, report) = rehearse(program, &rehearsal, &job);
        judge(program, &outcome, &report, 2 * FEWEST);
    }
}

/// As in `killed.rs`, but by the rank's own decision.
#[test]
fn a_rank_that_gives_up_ends_the_job_and_the_rehearsal() {
    let _turn = alone();
    let rehearsal = Rehearsal::default().every(Duration::from_millis(1));
    for (how, after) in [
        ("0", "0.5"),
        ("1", "0.57"),
        ("2", "0.63"),
        ("3", "0.71"),
        ("4", "0.8"),
    ] {
        let job = mpirun(2, "gives_up", &["--how", how, "--after", after], &[]);
        let (outcome, report) = rehearsal
            .run(&job, LIMIT)
            .unwrap_or_else(|error| panic!("{error}"));
        let told = outcome.describe();
        assert!(
            outcome.status.is_some_and(|status| !status.success()),
            "how {how}: the rehearsal did not end by itself, or well: {told}"
        );
        assert!(outcome.ok_line("gives_up").is_none(), "{told}");
        assert!(report.switches > 0, "no switch happened before: {told}");
    }
}

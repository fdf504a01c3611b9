use super::*;
use crate::operation::phase::Phase;
use crate::operation::plan::{Limits, Request};
use crate::operation::report::{PhaseTime, Report};
use crate::operation::state::Event;

fn plan() -> Plan {
    Plan {
        request_id: None,
        id: OperationId::nth(&"a".parse().unwrap(), 3),
        request: Request::Migrate {
            gang: "job".parse().unwrap(),
            to: "b".parse().unwrap(),
            mode: crate::operation::plan::Mode::Live,
            limits: Limits::default(),
        },
        vms: vec![],
        ranks: false,
        interconnect: crate::operation::plan::Target::Native,
        planned_ms: 5,
    }
}

fn written() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan();
    let mut journal = Journal::create(dir.path(), &plan, 5).unwrap();
    journal
        .append(
            Record::Intent {
                phase: Phase::Prepare,
            },
            6,
        )
        .unwrap();
    let outcome = Record::Outcome {
        phase: Phase::Prepare,
        event: Event::Completed,
    };
    journal.append(outcome, 7).unwrap();
    let path = path_of(dir.path(), &plan.id);
    (dir, path)
}

#[test]
fn replay_reaches_the_state_that_was_journalled() {
    let (_dir, path) = written();
    let replayed = replay(&path).unwrap().unwrap();
    assert_eq!(replayed.state.phase, Phase::Copy);
    assert_eq!(replayed.plan, plan());
    assert_eq!((replayed.last_ms, replayed.records), (7, 3));
}

#[test]
fn a_record_that_a_crash_cut_short_is_as_if_never_written() {
    let (_dir, path) = written();
    let text = std::fs::read_to_string(&path).unwrap();
    for cut in 1..60 {
        std::fs::write(&path, &text[..text.len() - cut]).unwrap();
        let replayed = replay(&path).unwrap().unwrap();
        assert_eq!(replayed.state.phase, Phase::Prepare);
    }
}

#[test]
fn a_journal_that_was_cut_short_is_gone_on_with_and_read_again() {
    let (dir, path) = written();
    let text = std::fs::read_to_string(&path).unwrap();
    for cut in [1, 5, 40] {
        std::fs::write(&path, &text[..text.len() - cut]).unwrap();
        let replayed = replay(&path).unwrap().unwrap();
        let mut journal = Journal::reopen(dir.path(), &replayed).unwrap();
        let phase = Phase::Copy;
        journal.append(Record::Intent { phase }, 8).unwrap();
        let again = replay(&path).unwrap().unwrap();
        assert_eq!((again.records, again.last_ms), (replayed.records + 1, 8));
    }
}

#[test]
fn a_damaged_record_before_others_is_an_error_with_its_line() {
    let (_dir, path) = written();
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("intent", "jntent", 1);
    std::fs::write(&path, text).unwrap();
    assert!(matches!(
        replay(&path),
        Err(JournalError::Damaged { line: 2, .. })
    ));
}

#[test]
fn a_checksum_that_was_written_otherwise_is_damage() {
    let (_dir, path) = written();
    let text = std::fs::read_to_string(&path).unwrap();
    let (crc, rest) = text.split_once(' ').unwrap();
    for crc in [format!("0{crc}"), format!("+{crc}"), crc.to_uppercase()] {
        let changed = format!("{crc} {rest}");
        let expected = if changed == text { Ok(3) } else { Err(1) };
        let told = replay_bytes(changed.as_bytes());
        assert_eq!(
            told.map(|told| told.map_or(0, |told| told.records)),
            expected
        );
    }
}

#[test]
fn what_was_measured_is_read_as_it_was_written() {
    let (dir, path) = written();
    let replayed = replay(&path).unwrap().unwrap();
    let mut journal = Journal::reopen(dir.path(), &replayed).unwrap();
    // Numbers whose shortest text a quick reader takes for their neighbour.
    let phases = (1..100_u64).map(|n| PhaseTime {
        phase: Phase::Copy,
        began_ms: n,
        took_ms: 1e23 / n as f64,
    });
    let report = Box::new(Report {
        phases: phases.collect(),
        ..Report::default()
    });
    let (phase, expected) = (Phase::Done, report.clone());
    journal.append(Record::Ended { phase, report }, 9).unwrap();
    let told = replay(&path).unwrap().unwrap().report;
    assert!(told == Some(*expected), "another number");
}

#[test]
fn a_disk_that_fills_up_under_a_journal_does_not_stop_it() {
    // A file system of its own, in a mount namespace of this thread.
    let separate = std::thread::spawn(|| {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let small = Some("size=1m");
        mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), small).unwrap();
        let mut journal = Journal::create(dir.path(), &plan(), 5).unwrap();
        let fill = |name| std::fs::write(dir.path().join(name), vec![0; 2 << 20]);
        assert!(fill("full").is_err(), "the disk is not full");
        for at_ms in 0..100 {
            let phase = Phase::Prepare;
            journal.append(Record::Intent { phase }, at_ms).unwrap();
        }
        let mut next = plan();
        next.id = OperationId::nth(&"a".parse().unwrap(), 4);
        let refused = Journal::create(dir.path(), &next, 5);
        assert!(matches!(refused, Err(JournalError::Io { .. })));
        assert!(!path_of(dir.path(), &next.id).exists());
        drop(journal);
        nix::mount::umount(dir.path()).unwrap();
    });
    separate.join().unwrap();
}

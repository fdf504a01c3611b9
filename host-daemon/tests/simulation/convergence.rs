//! A gang that dirties its memory faster than it is copied.

use symvirt_host::operation::{IfNotConverging, Mode, Phase};

use super::simulated::{Crash, Fault, Faults, Job, Moment, Setting, check, run};

fn dirties(asked: IfNotConverging) -> Option<Fault> {
    Some(Fault::Dirties(asked))
}

fn live(ranks: bool) -> Vec<Setting> {
    let all = Setting::all().into_iter();
    all.filter(|setting| setting.mode == Mode::Live && setting.ranks == ranks)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_gang_that_does_not_converge_is_rolled_back_and_the_reason_says_so() {
    for setting in live(true).into_iter().chain(live(false)) {
        let ended = run(setting, dirties(IfNotConverging::Refuse), None).await;
        check(setting, &ended, "refuse");
        assert_eq!(ended.state.phase, Phase::RolledBack, "{setting:?}");
        let reason = ended.state.reason().unwrap();
        assert!(
            reason.contains("vm2 dirties 104.9 MB/s") && reason.contains("--if-not-converging"),
            "{reason}"
        );
        let convergence = ended.report.convergence.unwrap();
        assert_eq!(convergence.predicted_ms, None, "never, it was foreseen");
        assert!(convergence.diverged.unwrap().contains("rolled back"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_slowed_down_step_by_step_until_its_gang_converges() {
    for setting in live(true) {
        let faults = vec![Fault::Dirties(IfNotConverging::Refuse), Fault::GivesWay];
        let ended = run(setting, Faults(faults), None).await;
        check(setting, &ended, "slowed down");
        assert_eq!(ended.state.phase, Phase::Done, "{:?}", ended.state.reason());
        assert_eq!(ended.report.convergence.unwrap().slowed, 60);
        // Said again and again, and left to end by itself when the gang stands still.
        let mut said = ended.world.slowed;
        assert!(said.len() > 5, "{said:?}");
        said.dedup();
        assert_eq!(said, [30, 60], "{setting:?}");
    }
}

/// As far as it was allowed, which is not enough; then it is as fast as before.
#[tokio::test(start_paused = true)]
async fn a_job_that_was_slowed_down_in_vain_goes_on_as_it_was() {
    let setting = live(true)[0];
    let faults = vec![
        Fault::Dirties(IfNotConverging::Refuse),
        Fault::MayBeSlowed(50),
        Fault::GivesWay,
    ];
    let ended = run(setting, Faults(faults), None).await;
    check(setting, &ended, "slowed down in vain");
    assert_eq!(ended.state.phase, Phase::RolledBack);
    let reason = ended.state.reason().unwrap();
    assert!(reason.contains("the job slowed down by 50 %"), "{reason}");
    assert_eq!(ended.world.slowed.last(), Some(&0));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_keeps_its_gang_from_converging_is_held_for_the_rest_if_that_was_asked_for() {
    for setting in live(true) {
        let ended = run(setting, dirties(IfNotConverging::Hold), None).await;
        check(setting, &ended, "hold");
        assert_eq!(ended.state.phase, Phase::Done, "{:?}", ended.state.reason());
        let switches = ended.report.switches.iter();
        let held: Vec<_> = switches.map(|switch| switch.phase).collect();
        assert!(held.contains(&Phase::HoldLate), "{held:?}");
        let expected = match setting.destination_hca || !setting.source_hca {
            true => Job::Native,
            false => Job::Fallback,
        };
        assert_eq!(ended.world.job, expected, "{setting:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gang_without_ranks_cannot_be_held() {
    for setting in live(false) {
        let ended = run(setting, dirties(IfNotConverging::Hold), None).await;
        check(setting, &ended, "nobody to hold");
        assert_eq!(ended.state.phase, Phase::RolledBack, "{setting:?}");
        assert!(ended.state.reason().unwrap().contains("no ranks"));
    }
}

#[tokio::test(start_paused = true)]
async fn vms_that_are_forced_cross_though_more_is_left_than_fits() {
    for setting in live(true).into_iter().chain(live(false)) {
        let ended = run(setting, dirties(IfNotConverging::Force), None).await;
        check(setting, &ended, "force");
        assert_eq!(ended.state.phase, Phase::Done, "{:?}", ended.state.reason());
        let notes = ended.report.notes.join(", ");
        assert!(notes.contains("more left than fits"), "{notes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_goes_well_is_foreseen() {
    for setting in live(true) {
        let ended = run(setting, None, None).await;
        let convergence = ended.report.convergence.unwrap();
        assert!(convergence.diverged.is_none());
        assert!(convergence.converged_ms.is_some() && convergence.predicted_ms.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_held_late_survives_a_cancel_or_a_fault_at_every_effect_and_record() {
    let setting = Setting {
        mode: Mode::Live,
        ranks: true,
        source_hca: true,
        destination_hca: true,
    };
    let hold = Fault::Dirties(IfNotConverging::Hold);
    let whole = run(setting, Some(hold), None).await;
    let (effects, records) = (whole.world.effects(), whole.records);
    for n in 0..records {
        let ended = run(setting, Some(hold), Some(n)).await;
        let what = format!("cancel at record {n} of {records}");
        check(setting, &ended, &what);
        let crossed = ended.world.crossed;
        let expected = if crossed {
            Phase::Done
        } else {
            Phase::RolledBack
        };
        assert_eq!(
            ended.state.phase,
            expected,
            "{what}: {:?}",
            ended.state.reason()
        );
    }
    // Every look at a copy is an effect; those between the first and the last few are alike.
    let few = (1..=effects).filter(|n| *n < 60 || *n % 7 == 0 || *n + 120 > effects);
    for n in few {
        let crash = |at| {
            Fault::Crashes(Crash {
                at,
                forward: n % 2 == 0,
            })
        };
        let faults = [
            Fault::Refused(n),
            Fault::AnswerLost(n),
            Fault::Breaks(n),
            crash(Moment::BeforeEffect(n)),
            crash(Moment::AfterEffect(n)),
        ];
        for fault in faults {
            let ended = run(setting, Faults(vec![hold, fault]), None).await;
            check(setting, &ended, &format!("{fault:?} of {effects}"));
            if matches!(fault, Fault::Crashes(_)) {
                let reason = ended.state.reason();
                assert_eq!(ended.state.phase, Phase::Done, "{fault:?}: {reason:?}");
            }
        }
    }
}

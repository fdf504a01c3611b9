//! Whole operations: every fault at every effect, a cancel at every record of the journal.

use symvirt_host::operation::{Mode, Phase};

use super::simulated::{Fault, Job, Place, Setting, Source, Vm, check, run};

#[tokio::test(start_paused = true)]
async fn without_faults_every_crossing_is_done() {
    for setting in Setting::all() {
        let ended = run(setting, None, None).await;
        check(setting, &ended, "no fault");
        assert_eq!(
            ended.state.phase,
            Phase::Done,
            "{setting:?}: {:?}",
            ended.state.reason()
        );
        let arrived = "b".parse().unwrap();
        assert!(
            ended
                .report
                .vms
                .iter()
                .all(|vm| vm.host.as_ref() == Some(&arrived))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_refused_each_vm_runs_once_and_the_job_with_it() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        for n in 1..=effects {
            let ended = run(setting, Some(Fault::Refused(n)), None).await;
            check(setting, &ended, &format!("effect {n} of {effects} refused"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_answer_is_lost_each_vm_runs_once_and_the_job_with_it() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        for n in 1..=effects {
            let ended = run(setting, Some(Fault::AnswerLost(n)), None).await;
            check(setting, &ended, &format!("answer {n} of {effects} lost"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_any_record_rolls_back_before_the_point_of_no_return_and_only_there() {
    for setting in Setting::all() {
        let records = run(setting, None, None).await.records;
        let mut rolled_back = 0;
        for n in 0..records {
            let ended = run(setting, None, Some(n)).await;
            check(
                setting,
                &ended,
                &format!("cancel at record {n} of {records}"),
            );
            let expected = if ended.world.crossed {
                Phase::Done
            } else {
                Phase::RolledBack
            };
            assert_eq!(
                ended.state.phase,
                expected,
                "{n}: {:?}",
                ended.state.reason()
            );
            rolled_back += usize::from(expected == Phase::RolledBack);
        }
        assert!(
            rolled_back > 0,
            "{setting:?}: no cancel came before the point of no return"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_veto_before_the_crossing_leaves_the_job_on_its_hca() {
    let setting = Setting {
        mode: Mode::Live,
        ranks: true,
        source_hca: true,
        destination_hca: false,
    };
    // The third effect after two of Prepare is the switch away from the HCA.
    let ended = run(setting, Some(Fault::Refused(3)), None).await;
    assert_eq!(ended.state.phase, Phase::RolledBack);
    assert!(ended.state.reason().unwrap().contains("injected veto"));
    check(setting, &ended, "veto");
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_does_not_arrive_runs_at_its_source_and_the_job_runs_split() {
    for setting in Setting::all() {
        for n in 1..=2 {
            let ended = run(setting, Some(Fault::Stays(n)), None).await;
            check(setting, &ended, "one stays");
            assert_eq!(ended.state.phase, Phase::Degraded, "{setting:?}");
            assert!(ended.state.reason().unwrap().contains("runs at its source"));
            let places: Vec<_> = ended.world.places().map(|(_, place)| place).collect();
            assert!(places.contains(&Place::Source) && places.contains(&Place::Destination));
            assert!(
                !ended.world.handed_over,
                "the gang is still coordinated at the source"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_never_comes_up_leaves_the_job_running_on_fallback() {
    for mode in [Mode::Live, Mode::Hold] {
        let setting = Setting {
            mode,
            ranks: true,
            source_hca: true,
            destination_hca: true,
        };
        let ended = run(setting, Some(Fault::LinkDown), None).await;
        check(setting, &ended, "link down");
        assert_eq!(ended.state.phase, Phase::Degraded);
        assert_eq!(ended.world.job, Job::Fallback);
        assert!(ended.state.reason().unwrap().contains("no active port"));
        assert!(ended.world.handed_over, "the gang is where it was to go");
        let wish = ended.world.wish.expect("the destination goes on trying");
        assert_eq!(wish.hcas.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn vms_that_are_stopped_in_vain_run_again_and_cross_later_or_not_at_all() {
    for (times, phase) in [(1, Phase::Done), (3, Phase::Done), (9, Phase::RolledBack)] {
        let setting = Setting {
            mode: Mode::Live,
            ranks: true,
            source_hca: true,
            destination_hca: true,
        };
        let ended = run(setting, Some(Fault::Lingers(times)), None).await;
        check(setting, &ended, "a VM lingers");
        assert_eq!(ended.state.phase, phase, "{times}: {:?}", ended.state);
        let runs = |vm: &Vm| vm.source == Source::Running;
        if phase == Phase::RolledBack {
            assert!(ended.world.vms.values().all(runs), "{:?}", ended.world);
            assert!(ended.state.reason().unwrap().contains("did not converge"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_holds_the_hca_is_named_and_the_job_never_leaves_it() {
    for mode in [Mode::Live, Mode::Hold] {
        let setting = Setting {
            mode,
            ranks: true,
            source_hca: true,
            destination_hca: false,
        };
        let ended = run(setting, Some(Fault::Stranger), None).await;
        check(setting, &ended, "stranger");
        assert_eq!(ended.state.phase, Phase::RolledBack);
        let reason = ended.state.reason().unwrap();
        assert!(reason.contains("ibv_asyncwatch (pid 99"), "{reason}");
        assert!(
            ended.report.switches.is_empty(),
            "the job was not disturbed"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_has_not_found_its_new_agent_yet_is_no_stranger() {
    for setting in Setting::all() {
        let ended = run(setting, Some(Fault::AgentNew), None).await;
        check(setting, &ended, "the agent has just begun anew");
        assert_eq!(ended.state.phase, Phase::Done, "{:?}", ended.state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_dies_while_held_brings_the_gang_home_and_is_named() {
    for setting in Setting::all() {
        let ended = run(setting, Some(Fault::DiesHeld), None).await;
        check(setting, &ended, "a rank dies while held");
        let held = setting.ranks && setting.mode == Mode::Hold;
        if held {
            assert_eq!(ended.state.phase, Phase::RolledBack, "{setting:?}");
            let reason = ended.state.reason().unwrap();
            assert!(
                reason.contains("rank 1 (app") && reason.contains("died"),
                "{reason}"
            );
        } else {
            assert_eq!(ended.state.phase, Phase::Done, "{setting:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_switch_breaks_the_end_tells_what_the_others_are_on() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        for n in 1..=effects {
            let ended = run(setting, Some(Fault::Breaks(n)), None).await;
            let what = format!("effect {n} of {effects} breaks");
            check(setting, &ended, &what);
            let broke = ended.state.reason().is_some();
            assert_eq!(
                broke,
                ended.state.phase != Phase::Done,
                "{what}, {setting:?}"
            );
            if ended.state.phase == Phase::RolledBack {
                assert!(!ended.world.crossed, "{what}, {setting:?}");
            }
        }
    }
}

//! Daemons and QEMUs that are killed, at every moment of an operation.

use symvirt_host::operation::{Mode, Phase, State};

use super::simulated::{Crash, Fault, Moment, Place, Setting, Side, check, run};

/// Every moment at which the coordinating daemon can end.
async fn moments(setting: Setting) -> Vec<Moment> {
    let whole = run(setting, None, None).await;
    let effects = 1..=whole.world.effects();
    let records = 0..whole.records;
    effects
        .flat_map(|n| [Moment::BeforeEffect(n), Moment::AfterEffect(n)])
        .chain(records.flat_map(|n| [Moment::BeforeRecord(n), Moment::AfterRecord(n)]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn whenever_the_coordinator_is_killed_the_next_one_brings_the_operation_to_its_end() {
    for setting in Setting::all() {
        for at in moments(setting).await {
            for forward in [false, true] {
                let fault = Fault::Crashes(Crash { at, forward });
                let ended = run(setting, Some(fault), None).await;
                let what = format!("killed {at:?}, forward: {forward}");
                check(setting, &ended, &what);
                assert!(ended.world.incarnation > 0, "{what}: it was not killed");
                assert_eq!(
                    ended.state.phase,
                    Phase::Done,
                    "{what}, {setting:?}: {:?}",
                    ended.state.reason()
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_may_be_killed_twice() {
    let setting = Setting {
        mode: Mode::Hold,
        ranks: true,
        source_hca: true,
        destination_hca: true,
    };
    let moments = moments(setting).await;
    for (n, first) in moments.iter().enumerate() {
        let second = moments[(n * 7 + 3) % moments.len()];
        let crash = |at, forward| Fault::Crashes(Crash { at, forward });
        let faults = super::simulated::Faults(vec![crash(*first, false), crash(second, true)]);
        let ended = run(setting, faults, None).await;
        check(setting, &ended, &format!("killed {first:?} and {second:?}"));
        assert_eq!(ended.state.phase, Phase::Done, "{first:?} and {second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_whose_daemon_is_restarted_is_waited_for() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        for n in 1..=effects {
            // Some seconds of calls, at growing intervals.
            let ended = run(setting, Some(Fault::Away(n, 8)), None).await;
            let what = format!("away from effect {n} of {effects} on");
            check(setting, &ended, &what);
            let reason = ended.state.reason();
            assert_eq!(
                ended.state.phase,
                Phase::Done,
                "{what}, {setting:?}: {reason:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_and_started_again_keeps_nothing_from_its_end() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        for n in 1..=effects {
            let ended = run(setting, Some(Fault::AgentDies(n, 20)), None).await;
            let what = format!("at effect {n} of {effects} an agent dies");
            check(setting, &ended, &what);
            let State { phase, .. } = ended.state;
            let reason = ended.state.reason();
            assert_eq!(phase, Phase::Done, "{what}, {setting:?}: {reason:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_qemu_that_is_killed_loses_its_vm_only_if_nothing_else_has_it() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        for n in 1..=effects {
            for side in [Side::Source, Side::Destination] {
                for vm in 0..2 {
                    let ended = run(setting, Some(Fault::Dies(n, side, vm)), None).await;
                    let what = format!("at effect {n} the {side:?}'s QEMU of VM {vm} dies");
                    check(setting, &ended, &what);
                    let lost = ended.world.places().filter(|(_, at)| *at == Place::Lost);
                    assert!(lost.count() <= 1, "{what}, {setting:?}");
                    // Before it is crossed to, it can be replaced.
                    assert_ne!(
                        (side, ended.state.phase),
                        (Side::Destination, Phase::RolledBack),
                        "{what}, {setting:?}: {:?}",
                        ended.state.reason()
                    );
                }
            }
        }
    }
}

/// Why a copy failed only the destination's QEMU knows, and it was not asked; and what might have
/// passed was not tried again.
#[tokio::test(start_paused = true)]
async fn a_copy_that_breaks_off_is_begun_anew_once_and_both_hosts_reasons_are_said() {
    for setting in Setting::all() {
        let effects = run(setting, None, None).await.world.effects();
        let (mut begun_anew, mut given_up) = (0, 0);
        for n in 1..=effects {
            let dies = |n| Fault::Dies(n, Side::Destination, 1);
            let ended = run(setting, Some(dies(n)), None).await;
            let said = "at the destination: its QEMU has ended: injected";
            let told = |note: &String| note.contains("copied anew") && note.contains(said);
            if !ended.report.notes.iter().any(told) {
                continue;
            }
            let reason = ended.state.reason();
            assert_eq!(
                ended.state.phase,
                Phase::Done,
                "{setting:?}, {n}: {reason:?}"
            );
            begun_anew += 1;
            for again in n + 1..=ended.world.effects() {
                let faults = super::simulated::Faults(vec![dies(n), dies(again)]);
                let ended = run(setting, faults, None).await;
                check(
                    setting,
                    &ended,
                    &format!("it dies at effects {n} and {again}"),
                );
                let reason = ended.state.reason().unwrap_or_default();
                if ended.state.phase == Phase::RolledBack {
                    assert_eq!(reason.matches("has ended: injected").count(), 2, "{reason}");
                    given_up += 1;
                }
            }
        }
        assert!(
            begun_anew > 0 && given_up > 0,
            "{setting:?}: {begun_anew}, {given_up}"
        );
    }
}

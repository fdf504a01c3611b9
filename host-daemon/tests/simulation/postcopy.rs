//! A gang that does not converge, and crosses before the rest of its memory.

use symvirt_host::operation::{IfNotConverging, Phase};

use super::simulated::{
    Crash, Ended, Fault, Faults, Moment, Place, Setting, Side, Source, check, run,
};

const POSTCOPY: Fault = Fault::Dirties(IfNotConverging::Postcopy);

fn live(bits: [bool; 3]) -> Setting {
    let [ranks, source_hca, destination_hca] = bits;
    Setting {
        mode: symvirt_host::operation::Mode::Live,
        ranks,
        source_hca,
        destination_hca,
    }
}

fn settings() -> [Setting; 3] {
    [
        [true, true, true],
        [true, true, false],
        [false, false, true],
    ]
    .map(live)
}

async fn with(setting: Setting, faults: &[Fault]) -> Ended {
    let faults = [&[POSTCOPY], faults].concat();
    run(setting, Faults(faults), None).await
}

/// The effects of the phase, as far as can be told: the last few hundred are its, and what follows.
async fn moments(setting: Setting) -> (usize, usize) {
    let whole = with(setting, &[]).await;
    (whole.world.effects(), whole.records)
}

#[tokio::test(start_paused = true)]
async fn a_gang_that_does_not_converge_crosses_and_its_memory_follows() {
    for setting in settings() {
        let ended = with(setting, &[]).await;
        check(setting, &ended, "postcopy");
        assert_eq!(ended.state.phase, Phase::Done, "{:?}", ended.state.reason());
        let notes = ended.report.notes.join(", ");
        assert!(notes.contains("before the rest of their memory"), "{notes}");
        let phases: Vec<_> = ended.report.phases.iter().map(|time| time.phase).collect();
        let at = |phase| phases.iter().position(|known| *known == phase);
        assert_eq!(
            at(Phase::Postcopy),
            at(Phase::SwitchOver).map(|before| before + 1),
            "{phases:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gang_that_converges_has_nothing_that_follows() {
    let setting = live([true, true, true]);
    let faults = [Fault::GivesWay];
    let ended = with(setting, &faults).await;
    check(setting, &ended, "slowed down, and converged");
    assert_eq!(ended.state.phase, Phase::Done);
    assert!(ended.report.convergence.unwrap().diverged.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_is_joined_again_and_the_report_says_so() {
    for setting in settings() {
        for times in [1, 2, 20] {
            let ended = with(setting, &[Fault::LinkBreaks(times)]).await;
            check(setting, &ended, "the link breaks");
            assert_eq!(ended.state.phase, Phase::Done, "{:?}", ended.state.reason());
            let notes = ended.report.notes.join(", ");
            assert!(notes.contains("the memory of vm2 followed"), "{notes}");
        }
    }
}

/// Nobody can help a VM whose other half is gone: it is said at once, and nothing is left of it.
#[tokio::test(start_paused = true)]
async fn a_qemu_that_dies_takes_its_vm_and_no_other_whenever_it_dies() {
    let setting = live([true, true, true]);
    let (effects, _) = moments(setting).await;
    let mut lost = [0; 2];
    for n in effects.saturating_sub(60)..=effects {
        for (side, lost) in [Side::Source, Side::Destination].into_iter().zip(&mut lost) {
            let ended = with(setting, &[Fault::Dies(n, side, 1)]).await;
            check(
                setting,
                &ended,
                &format!("{side:?} dies at {n} of {effects}"),
            );
            let places: Vec<_> = ended.world.places().map(|(_, place)| place).collect();
            assert_ne!(places[0], Place::Lost, "{n}, {side:?}");
            *lost += usize::from(places[1] == Place::Lost);
            let left = ended.world.vms.values().map(|vm| vm.source);
            let serves = left
                .into_iter()
                .any(|source| matches!(source, Source::Serving(_)));
            assert!(!serves, "{n}, {side:?}: half a VM is left");
            assert!(
                !ended.state.unknown.contains(&"vm2".parse().unwrap()) || places[1] != Place::Lost
            );
        }
    }
    assert!(
        lost.iter().all(|lost| *lost > 0),
        "{lost:?}: none died in time"
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_else_fails_everything_follows() {
    for setting in settings() {
        let (effects, records) = moments(setting).await;
        let crash = |at, forward| Fault::Crashes(Crash { at, forward });
        let of_effect = |n: usize| {
            [
                Fault::Refused(n),
                Fault::AnswerLost(n),
                Fault::Away(n, 8),
                crash(Moment::BeforeEffect(n), n.is_multiple_of(2)),
                crash(Moment::AfterEffect(n), n.is_multiple_of(2)),
            ]
        };
        let of_record = |n: usize| {
            [Moment::BeforeRecord(n), Moment::AfterRecord(n)]
                .map(|at| crash(at, n.is_multiple_of(2)))
        };
        let late = (effects.saturating_sub(80)..=effects).flat_map(of_effect);
        for fault in late.chain((0..records).flat_map(of_record)) {
            for breaks in [None, Some(Fault::LinkBreaks(2))] {
                let faults: Vec<_> = breaks.into_iter().chain([fault]).collect();
                let ended = with(setting, &faults).await;
                check(setting, &ended, &format!("{faults:?} of {effects}"));
                let reason = ended.state.reason();
                if matches!(fault, Fault::Crashes(_) | Fault::Away(..)) {
                    assert_eq!(ended.state.phase, Phase::Done, "{faults:?}: {reason:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_stays_does_not_keep_the_memory_of_the_other_from_following() {
    for setting in settings() {
        for n in 1..=2 {
            let ended = with(setting, &[Fault::Stays(n)]).await;
            check(setting, &ended, "one stays");
            assert_eq!(
                ended.state.phase,
                Phase::Degraded,
                "{:?}",
                ended.state.reason()
            );
        }
    }
}

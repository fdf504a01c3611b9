//! Coordinators and agents that die in mid-switch, and those that come after them.

#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod agent;

use std::time::Duration;

use agent::gang::{LIMIT, gang, until};
use agent::{Agents, Slow, join};
use symvirt_host::guest::Gang;
use symvirt_host::operation::Target;
use symvirt_host::operation::effects::{Guests, Left, Standing, SwitchFailure};

/// The coordinator dies when one of two agents has heard this and its ranks have not answered.
/// Where the next one finds the gang, and the next one.
async fn outlived(slow: Slow, hold: bool) -> (Standing, Gang) {
    let agents = Agents::new();
    let first = gang(&agents);
    let vms = ["vm1", "vm2"].map(|vm| vm.parse().unwrap());
    for vm in &vms {
        first.attach(vm, &"a".parse().unwrap());
    }
    let willing = agents.play("vm1", "a", vec![join("vm1")]).await;
    let (slow, reached) = agents.play_slow("vm2", "a", vec![join("vm2")], slow).await;
    until(&first, |view| view.ranks.len() == 2).await;
    let switching = tokio::spawn(async move {
        if hold {
            first.hold(LIMIT).await.unwrap();
            first.rebuild(Target::Fallback, LIMIT).await.unwrap();
        } else {
            first.switch(Target::Fallback, LIMIT).await.unwrap();
        }
    });
    reached.notified().await;
    switching.abort();
    assert!(switching.await.unwrap_err().is_cancelled());

    let second = gang(&agents);
    for vm in &vms {
        second.attach(vm, &"a".parse().unwrap());
    }
    agents.move_to("vm1", "a", willing).await;
    agents.move_to("vm2", "a", slow).await;
    let standing = second.recover(&vms, LIMIT).await.unwrap();
    (standing, second)
}

#[tokio::test]
async fn a_switch_that_nobody_has_carried_out_is_undone_when_its_coordinator_dies() {
    for slow in [Slow::Peers, Slow::Commit] {
        let (standing, gang) = outlived(slow, false).await;
        assert!(standing.ranks && !standing.held);
        assert_eq!(standing.interconnect, Target::Native);
        gang.switch(Target::Fallback, LIMIT).await.unwrap();
    }
}

#[tokio::test]
async fn a_switch_that_somebody_has_carried_out_goes_on_when_its_coordinator_dies() {
    for slow in [Slow::Expect, Slow::Release] {
        let (standing, gang) = outlived(slow, false).await;
        assert!(standing.ranks && !standing.held);
        assert_eq!(standing.interconnect, Target::Fallback);
        gang.switch(Target::Native, LIMIT).await.unwrap();
    }
}

#[tokio::test]
async fn a_hold_goes_on_when_its_coordinator_dies_and_the_next_can_end_it() {
    for slow in [Slow::Expect, Slow::Release, Slow::Peers] {
        let (standing, gang) = outlived(slow, true).await;
        assert!(standing.ranks && standing.held);
        assert_eq!(standing.interconnect, Target::Native);
        gang.rebuild(Target::Fallback, LIMIT).await.unwrap();
        gang.switch(Target::Native, LIMIT).await.unwrap();
    }
    let (standing, _) = outlived(Slow::Open, true).await;
    assert_eq!(
        (standing.held, standing.interconnect),
        (false, Target::Fallback)
    );
}

#[tokio::test]
async fn what_depends_on_a_silent_guest_is_not_guessed() {
    let agents = Agents::new();
    let first = gang(&agents);
    let vms = ["vm1", "vm2"].map(|vm| vm.parse().unwrap());
    for vm in &vms {
        first.attach(vm, &"a".parse().unwrap());
    }
    let willing = agents.play("vm1", "a", vec![join("vm1")]).await;
    let (_silent, reached) = agents
        .play_slow("vm2", "a", vec![join("vm2")], Slow::Commit)
        .await;
    until(&first, |view| view.ranks.len() == 2).await;
    let switching = tokio::spawn(async move { first.switch(Target::Fallback, LIMIT).await });
    reached.notified().await;
    switching.abort();
    assert!(switching.await.unwrap_err().is_cancelled());

    let second = gang(&agents);
    for vm in &vms {
        second.attach(vm, &"a".parse().unwrap());
    }
    agents.move_to("vm1", "a", willing).await;
    assert!(second.heard(&vms[..1], LIMIT).await);
    let failure = second.recover(&vms, Duration::ZERO).await.unwrap_err();
    match failure {
        SwitchFailure::Broken { reason, left } => {
            assert!(reason.contains("vm2"), "{reason}");
            assert_eq!(left, Left::Unknown);
        }
        other => panic!("{other:?}"),
    }
    // Its VM is known to be lost.
    let standing = second.recover(&vms[..1], LIMIT).await.unwrap();
    assert_eq!(standing.interconnect, Target::Native);
}

/// What is asked of a gang.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Switch,
    Hold,
    Rebuild,
}

/// Asks it of a gang of two, and has the agent of the second killed when it has heard `at`; another
/// one is started `away` later. How it ends, and the gang.
async fn bereft(
    asked: Asked,
    at: Slow,
    away: Duration,
) -> (Result<(), SwitchFailure>, Gang, Agents) {
    let agents = Agents::new();
    let gang = gang(&agents);
    for vm in ["vm1", "vm2"] {
        gang.attach(&vm.parse().unwrap(), &"a".parse().unwrap());
    }
    agents.play("vm1", "a", vec![join("vm1")]).await;
    let (slow, reached) = agents.play_slow("vm2", "a", vec![join("vm2")], at).await;
    until(&gang, |view| view.ranks.len() == 2).await;
    let asking = tokio::spawn({
        let gang = gang.clone();
        async move {
            match asked {
                Asked::Switch => gang.switch(Target::Fallback, LIMIT).await.map(drop),
                Asked::Hold => gang.hold(LIMIT).await.map(drop),
                Asked::Rebuild => {
                    gang.hold(LIMIT).await?;
                    gang.rebuild(Target::Fallback, LIMIT).await.map(drop)
                }
            }
        }
    });
    reached.notified().await;
    let killed = agents.kill(slow).await;
    tokio::time::sleep(away).await;
    if away > LIMIT {
        assert_eq!(gang.silent(), ["vm2".parse().unwrap()]);
    }
    agents.start_again("vm2", "a", killed).await;
    (asking.await.unwrap(), gang, agents)
}

/// An agent that was killed in mid-switch used to fail what was asked, though its guest starts it
/// again: the operation was undone, or its job left on the lesser interconnect.
#[tokio::test]
async fn whenever_an_agent_is_killed_its_successor_is_waited_for() {
    use Asked::{Hold, Rebuild, Switch};
    for (asked, at) in [
        (Switch, Slow::Prepare),
        (Switch, Slow::Peers),
        (Switch, Slow::Commit),
        (Switch, Slow::Expect),
        (Switch, Slow::Release),
        (Hold, Slow::Commit),
        (Hold, Slow::Expect),
        (Hold, Slow::Release),
        (Rebuild, Slow::Prepare),
        (Rebuild, Slow::Peers),
        (Rebuild, Slow::Open),
    ] {
        let (ended, gang, _agents) = bereft(asked, at, Duration::ZERO).await;
        assert_eq!(ended, Ok(()), "{asked:?} at {at:?}");
        let held = matches!(asked, Hold);
        until(&gang, |view| view.held == held && view.ranks.len() == 2).await;
        let last = match held {
            true => gang.rebuild(Target::Native, LIMIT).await,
            false => gang.switch(Target::Native, LIMIT).await,
        };
        assert_eq!(last.unwrap().stalls.len(), 2, "{asked:?} at {at:?}");
    }
}

#[tokio::test]
async fn an_agent_that_is_back_when_all_patience_had_ended_is_told_to_begin_again() {
    tokio::time::pause();
    let away = LIMIT + Duration::from_secs(5);
    for asked in [Asked::Switch, Asked::Rebuild] {
        let (ended, ..) = bereft(asked, Slow::Peers, away).await;
        assert_eq!(ended, Ok(()), "{asked:?}");
    }
}

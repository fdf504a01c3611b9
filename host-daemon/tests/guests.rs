//! A gang's coordinator and channels, against agents that a test plays.

#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod agent;

use agent::gang::{LIMIT, gang, until};
use agent::{Agents, join};
use symvirt_host::guest::{AgentView, Gang};
use symvirt_host::operation::Target;
use symvirt_host::operation::effects::{Guests, HandOver, Left, SwitchFailure};
use symvirt_protocol::agent::DeviceReport;

#[tokio::test]
async fn ranks_on_two_guests_switch_and_report_their_stalls() {
    let agents = Agents::new();
    let gang = gang(&agents);
    for vm in ["vm1", "vm2"] {
        gang.attach(&vm.parse().unwrap(), &"a".parse().unwrap());
        agents.play(vm, "a", vec![join(vm)]).await;
    }
    until(&gang, |view| view.ranks.len() == 2).await;
    let switched = gang.switch(Target::Fallback, LIMIT).await.unwrap();
    assert_eq!(switched.stalls.len(), 2);
    until(&gang, |view| {
        view.epoch == 1 && view.interconnect == Target::Fallback
    })
    .await;
}

#[tokio::test]
async fn a_gang_is_held_and_rebuilt_after_its_guest_has_moved() {
    let agents = Agents::new();
    let gang = gang(&agents);
    let vm = "vm1".parse().unwrap();
    gang.attach(&vm, &"a".parse().unwrap());
    let played = agents.play("vm1", "a", vec![join("vm1")]).await;
    until(&gang, |view| view.ranks.len() == 1).await;
    gang.hold(LIMIT).await.unwrap();
    // The guest's memory, its agent's link included, is on the other host now.
    gang.moved(&vm, &"b".parse().unwrap());
    agents.move_to("vm1", "b", played).await;
    let rebuilt = gang.rebuild(Target::Native, LIMIT).await.unwrap();
    assert_eq!(rebuilt.stalls.len(), 1);
}

#[tokio::test]
async fn a_stream_that_leads_nowhere_is_given_up_for_another() {
    let agents = Agents::new();
    let gang = gang(&agents);
    gang.attach(&"vm1".parse().unwrap(), &"a".parse().unwrap());
    let _nowhere = agents.end("vm1", "a").await;
    tokio::time::pause();
    let answered = agents.play("vm1", "a", vec![join("vm1")]);
    tokio::time::timeout(3 * LIMIT, answered).await.unwrap();
    tokio::time::resume();
    until(&gang, |view| view.ranks.len() == 1).await;
}

#[tokio::test]
async fn a_rank_that_vetoes_leaves_the_gang_where_it_was() {
    let agents = Agents::new();
    let gang = gang(&agents);
    gang.attach(&"vm1".parse().unwrap(), &"a".parse().unwrap());
    agents.play_vetoing("vm1", "a", vec![join("vm1")]).await;
    until(&gang, |view| view.ranks.len() == 1).await;
    // It is asked several times, with pauses.
    tokio::time::pause();
    let failure = gang.switch(Target::Fallback, LIMIT).await.unwrap_err();
    tokio::time::resume();
    assert!(matches!(&failure, SwitchFailure::Aborted(why) if why.contains("no memory")));
    until(&gang, |view| {
        view.epoch == 0 && view.interconnect == Target::Native
    })
    .await;
}

#[tokio::test]
async fn a_silent_rank_ends_the_switch_in_time_by_name() {
    let agents = Agents::new();
    let gang = gang(&agents);
    gang.attach(&"vm1".parse().unwrap(), &"a".parse().unwrap());
    agents.play_deaf("vm1", "a", vec![join("vm1")]).await;
    until(&gang, |view| view.ranks.len() == 1).await;
    // Patience for the switch, then for its abort, which this rank does not answer either.
    tokio::time::pause();
    let failure = gang.switch(Target::Fallback, LIMIT).await.unwrap_err();
    assert!(failure.to_string().contains("vm1"), "{failure}");
}

#[tokio::test]
async fn a_device_report_is_kept_until_the_next_is_asked_for() {
    let agents = Agents::new();
    let gang = gang(&agents);
    let vm = "vm1".parse().unwrap();
    gang.attach(&vm, &"a".parse().unwrap());
    agents.play("vm1", "a", vec![]).await;
    until(&gang, |view| {
        view.guests
            .values()
            .any(|guest| guest.devices == Some(DeviceReport::default()))
    })
    .await;
    assert!(gang.devices(&vm).is_some());
    gang.ask_devices(&vm);
    // Whoever asks and then looks does not take the old one for the answer.
    assert_eq!(gang.devices(&vm), None);
    until(&gang, |view| {
        view.guests.values().any(|guest| guest.devices.is_some())
    })
    .await;
}

#[tokio::test]
async fn guests_say_how_much_page_cache_they_have_dropped_each_time_anew() {
    let agents = Agents::new();
    let gang = gang(&agents);
    for vm in ["vm1", "vm2"] {
        gang.attach(&vm.parse().unwrap(), &"a".parse().unwrap());
    }
    agents.play("vm1", "a", vec![]).await;
    until(&gang, |view| {
        view.guests
            .values()
            .any(|guest| matches!(guest.agent, AgentView::Present { .. }))
    })
    .await;
    for _ in 0..2 {
        // Of vm2 nothing was ever heard: nobody waits for it.
        let dropped = gang.drop_cache(LIMIT).await;
        assert_eq!(dropped, [("vm1".parse().unwrap(), 4096)].into());
    }
}

#[tokio::test]
async fn an_agent_of_another_version_is_named_as_such() {
    let agents = Agents::new();
    let gang = gang(&agents);
    gang.attach(&"vm1".parse().unwrap(), &"a".parse().unwrap());
    agents.play_other_version("vm1", "a").await;
    until(&gang, |view| {
        view.guests.values().any(
            |guest| matches!(&guest.agent, AgentView::Incompatible(why) if why.contains("999")),
        )
    })
    .await;
}

#[tokio::test]
async fn a_gang_that_is_handed_over_is_known_by_its_ranks() {
    let agents = Agents::new();
    let first = gang(&agents);
    let vm = "vm1".parse().unwrap();
    first.attach(&vm, &"a".parse().unwrap());
    let mut rank = join("vm1");
    agents.play("vm1", "a", vec![rank.clone()]).await;
    until(&first, |view| view.ranks.len() == 1).await;
    first.switch(Target::Fallback, LIMIT).await.unwrap();
    let HandOver {
        epoch,
        interconnect,
        agents: heard,
    } = first.hand_over().await;
    assert_eq!((epoch, interconnect), (1, Target::Fallback));
    assert_eq!(heard, std::slice::from_ref(&vm));

    let second = Gang::start(
        "job".parse().unwrap(),
        agents.connector(),
        epoch,
        interconnect,
    );
    second.attach(&vm, &"a".parse().unwrap());
    rank.epoch = symvirt_protocol::ids::Epoch(1);
    agents.play("vm1", "a", vec![rank]).await;
    assert!(second.heard(&heard, LIMIT).await);
    until(&second, |view| view.ranks.len() == 1).await;
    second.switch(Target::Native, LIMIT).await.unwrap();
    until(&second, |view| view.epoch == 2).await;
}

#[tokio::test]
async fn a_rank_that_is_killed_in_mid_switch_ends_it_by_name() {
    let agents = Agents::new();
    let gang = gang(&agents);
    for vm in ["vm1", "vm2"] {
        gang.attach(&vm.parse().unwrap(), &"a".parse().unwrap());
    }
    agents.play("vm1", "a", vec![join("vm1")]).await;
    agents.play_dying("vm2", "a", vec![join("vm2")]).await;
    until(&gang, |view| view.ranks.len() == 2).await;
    let failure = gang.hold(LIMIT).await.unwrap_err();
    let said = failure.to_string();
    assert!(said.contains("died") && said.contains("app-vm2"), "{said}");
    until(&gang, |view| view.ranks.len() == 1).await;
    // Who is left can be moved again.
    gang.switch(Target::Fallback, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_rank_that_is_killed_while_held_is_remembered_until_the_next_hold() {
    let agents = Agents::new();
    let gang = gang(&agents);
    for vm in ["vm1", "vm2"] {
        gang.attach(&vm.parse().unwrap(), &"a".parse().unwrap());
    }
    let _first = agents.play("vm1", "a", vec![join("vm1")]).await;
    let second = agents.play("vm2", "a", vec![join("vm2")]).await;
    until(&gang, |view| view.ranks.len() == 2).await;
    gang.hold(LIMIT).await.unwrap();
    assert_eq!(gang.died_held(), None);
    agents.kill_ranks("vm2", "a", second).await;
    until(&gang, |view| view.ranks.len() == 1).await;
    assert!(gang.died_held().unwrap().contains("app-vm2"));
    gang.rebuild(Target::Native, LIMIT).await.unwrap();
    gang.hold(LIMIT).await.unwrap();
    assert_eq!(gang.died_held(), None);
}

/// A hold that could not be ended was nobody's to end any more: the gang was busy with it.
#[tokio::test]
async fn a_gang_that_was_left_held_is_switched_by_the_next_operation() {
    let agents = Agents::new();
    let first = gang(&agents);
    let vms = ["vm1".parse().unwrap()];
    first.attach(&vms[0], &"a".parse().unwrap());
    let played = agents.play("vm1", "a", vec![join("vm1")]).await;
    until(&first, |view| view.ranks.len() == 1).await;
    first.hold(LIMIT).await.unwrap();
    first.hold(LIMIT).await.unwrap();
    first.hand_over().await;
    let second = gang(&agents);
    second.attach(&vms[0], &"a".parse().unwrap());
    agents.move_to("vm1", "a", played).await;
    assert!(second.recover(&vms, LIMIT).await.unwrap().held);
    let switched = second.switch(Target::Fallback, LIMIT).await.unwrap();
    assert_eq!(switched.stalls.len(), 1);
    until(&second, |view| !view.held).await;
}

async fn with_a_late_death() -> (Agents, Gang) {
    let agents = Agents::new();
    let gang = gang(&agents);
    for vm in ["vm1", "vm2"] {
        gang.attach(&vm.parse().unwrap(), &"a".parse().unwrap());
    }
    agents.play("vm1", "a", vec![join("vm1")]).await;
    agents.play_dying_late("vm2", "a", vec![join("vm2")]).await;
    until(&gang, |view| view.ranks.len() == 2).await;
    (agents, gang)
}

fn left(failure: &SwitchFailure) -> Left {
    match failure {
        SwitchFailure::Broken { reason, left } => {
            assert!(reason.contains("app-vm2"), "{reason}");
            *left
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_switch_that_breaks_late_says_that_the_others_have_changed_over() {
    let (_agents, gang) = with_a_late_death().await;
    let failure = gang.switch(Target::Fallback, LIMIT).await.unwrap_err();
    assert_eq!(left(&failure), Left::After);
    until(&gang, |view| {
        view.interconnect == Target::Fallback && view.ranks.len() == 1
    })
    .await;
    gang.switch(Target::Native, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_hold_that_breaks_late_says_that_the_others_are_held() {
    let (_agents, gang) = with_a_late_death().await;
    let failure = gang.hold(LIMIT).await.unwrap_err();
    assert_eq!(left(&failure), Left::Held);
    gang.rebuild(Target::Native, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_gang_without_ranks_is_switched_for_its_next_job() {
    let agents = Agents::new();
    let gang = gang(&agents);
    gang.attach(&"vm1".parse().unwrap(), &"a".parse().unwrap());
    agents.play("vm1", "a", vec![]).await;
    gang.switch(Target::Fallback, LIMIT).await.unwrap();
    until(&gang, |view| {
        view.interconnect == Target::Fallback && view.epoch == 1
    })
    .await;
}

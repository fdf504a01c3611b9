//! A gang that is handed over, as the host that takes it over brings it to its end.
#![allow(clippy::unwrap_used)] // A test that fails may panic.

#[allow(dead_code)] // Shared with other test programs.
mod agent;
#[allow(dead_code)] // Shared with other test programs.
mod daemons;
mod namespace;
#[allow(dead_code)] // Shared with other test programs.
mod vms;

use std::sync::Arc;

use agent::gang::until;
use agent::{Agents, join};
use daemons::{Bed, LIMIT};
use namespace::inside_namespace;
use symvirt_host::guest::{Gang, Gangs};
use symvirt_host::host::LocalHost;
use symvirt_host::operation::Target;
use symvirt_host::operation::effects::{Guests, HandOver, Host as _, HostCall};
use vms::Host;

#[tokio::test]
async fn a_gang_that_is_handed_over_held_runs_again() {
    if !inside_namespace("a_gang_that_is_handed_over_held_runs_again") {
        return;
    }
    let host = Host::new();
    let bed = Bed::new(host.folder.path());
    let agents = Agents::new();
    let mut spec = host.spec();
    (spec.hca, spec.disks) = (None, Vec::new());
    let vm = spec.name.clone();
    let first = Gang::start(spec.gang.clone(), agents.connector(), 0, Target::Native);
    first.attach(&vm, &"a".parse().unwrap());
    let played = agents.play("vm1", "a", vec![join("vm1")]).await;
    until(&first, |view| view.ranks.len() == 1).await;
    first.hold(LIMIT).await.unwrap();
    let HandOver {
        epoch,
        interconnect,
        agents: heard,
    } = first.hand_over().await;

    let config = bed.config("b", "pki", "1GiB");
    std::fs::create_dir_all(&config.state_dir).unwrap();
    let gangs = Arc::new(Gangs::new(agents.connector()));
    let b = Arc::new(LocalHost::new(Arc::new(config), gangs.clone()).unwrap());
    let gang = spec.gang.clone();
    b.start(spec).await.unwrap();
    agents.move_to("vm1", "b", played).await;
    let adopt = HostCall::Adopt {
        operation: "a-7".parse().unwrap(),
        gang: gang.clone(),
        epoch,
        interconnect,
        agents: heard,
        wish: None,
    };
    // Well before anybody would wonder whose ranks stand still there.
    let adopted = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        b.call(adopt).await.unwrap();
        let known = gangs.get(&gang).unwrap();
        until(&known, |view| {
            !view.held && view.interconnect == Target::Fallback && view.ranks.len() == 1
        })
        .await;
    });
    adopted.await.unwrap();
    b.stop(&vm).await.unwrap();
}

//! The gang at the daemon's end.

use std::time::Duration;

use symvirt_host::guest::{Gang, GangView};
use symvirt_host::operation::Target;

use super::Agents;

/// Long enough for a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The gang `job` that these agents belong to.
pub fn gang(agents: &Agents) -> Gang {
    Gang::start(
        "job".parse().unwrap(),
        agents.connector(),
        0,
        Target::Native,
    )
}

/// Waits until the gang is seen so.
pub async fn until(gang: &Gang, enough: impl Fn(&GangView) -> bool) {
    let waited = async {
        while !enough(&gang.view()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, waited)
        .await
        .unwrap_or_else(|_| panic!("{:?}", gang.view()));
}

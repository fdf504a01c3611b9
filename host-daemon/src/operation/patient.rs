//! A peer whose daemon may be restarting: every call can be repeated, so one that was not answered
//! is made again until the peer has had time to come back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::effects::{Host, HostCall, HostError, HostReply};

/// How long a daemon may take to be there again: its supervisor's pause, and its start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before the second call; doubled each time.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A host that is asked again while it cannot be reached.
pub struct Patient {
    host: Arc<dyn Host>,
}

impl Patient {
    /// Asks `host`.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    async fn ask(&self, call: HostCall) -> Result<HostReply, HostError> {
        let patience = patience(&call);
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            let answer = self.host.call(call.clone()).await;
            let Err(HostError::Unreachable { host, reason }) = &answer else {
                return answer;
            };
            if began.elapsed() >= patience {
                return answer;
            }
            if pause == PAUSE {
                warn!(%host, reason, "no answer; asked again for {} s", patience.as_secs());
            }
            sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}

/// Where VMs stand still for the answer, or nobody needs it, a peer is not waited for.
fn patience(call: &HostCall) -> Duration {
    match call {
        HostCall::StillWaits { .. } | HostCall::Look { .. } | HostCall::Account { .. } => {
            Duration::ZERO
        }
        _ => PATIENCE,
    }
}

impl Host for Patient {
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>> {
        Box::pin(self.ask(call))
    }
}

//! What an earlier coordinator of the gang has left, brought to its end: when somebody asks for it,
//! or by itself.

use std::time::Duration;

use symvirt_protocol::gang::{GuestId, Phase};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::super::attempt::{Attempt, Begin};
use super::Coordinator;
use crate::operation::effects::{Left, SwitchFailure};

/// How long after its beginning a coordinator takes ranks in that have just started: by then it
/// knows whether it is in the middle of a switch.
pub(super) const MEETING: Duration = Duration::from_secs(5);
/// How long ranks that an earlier coordinator left in the middle of a switch wait for an operation
/// to ask for its recovery, before it is settled without.
pub(super) const ORPHANED: Duration = Duration::from_secs(60);

impl Coordinator {
    /// The guests have had time to be met: ranks that joined meanwhile may begin. What an earlier
    /// coordinator began, for an operation that nobody seems to know of any more, waits longer.
    pub(super) fn settle(&mut self) {
        self.settle_at = None;
        if self.attempt.is_some() || self.gang.phase().is_some() {
            return;
        }
        if self.gang.is_unsettled() && self.since.elapsed() < ORPHANED {
            self.settle_at = Some(self.since + ORPHANED);
            return;
        }
        let attached = self.guests.keys();
        self.expected = attached.map(|vm| GuestId(vm.to_string())).collect();
        if !self.gang.is_unsettled() {
            self.expected.clear();
        }
        let (answer, _) = oneshot::channel();
        let epoch = self.gang.epoch();
        self.attempt = Some(Attempt::new(Begin::Recover, epoch, ORPHANED, answer));
        self.start(Begin::Recover);
    }

    pub(super) fn recover(&mut self) {
        match self.gang.recover(&self.expected) {
            Ok(effects) => {
                self.carry_out(effects);
                if let None | Some((_, Phase::Held)) = self.gang.phase() {
                    self.answer(None);
                }
            }
            Err(unsettled) => {
                warn!(gang = %self.name, %unsettled, "nothing can begin");
                self.settle_at = Some(Instant::now() + ORPHANED);
                self.answer(Some(SwitchFailure::Broken {
                    reason: unsettled.to_string(),
                    left: Left::Unknown,
                }));
            }
        }
    }

    pub(super) fn is_recovering(&self) -> bool {
        let begin = self.attempt.as_ref().map(|attempt| attempt.begin);
        matches!(begin, Some(Begin::Recover))
    }
}

//! One wish for a switch, a hold or a rebuild, from its beginning to its answer, over the attempts
//! that it takes.
//!
//! Ranks come and go: one that finalizes in mid-round vetoes or leaves, which says nothing about
//! the next round. So what came to nothing for such a reason is begun again, a few times. An agent
//! that is killed takes the round with it, and is started again by its guest: it is waited for as
//! long as an answer is, and the round begun again with it.

use std::time::Duration;

use symvirt_protocol::gang::Reason;
use symvirt_protocol::ids::Epoch;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use crate::operation::Target;
use crate::operation::effects::{SwitchFailure, Switched};
use crate::operation::report::RankStall;

/// Attempts after the first.
const RETRIES: u32 = 5;
/// Before the second attempt, for the rank that starts or ends to have done so; doubled before
/// each further one. `MPI_Init` in an emulated guest takes some seconds.
const PAUSE: Duration = Duration::from_millis(500);
/// Patience with ranks that are told to abort, or are past the point of it.
const GRACE: Duration = Duration::from_secs(10);

/// What is begun.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// Settle what an earlier coordinator began.
    Recover,
    Switch(Target),
    Hold,
    Rebuild(Target),
}

/// Where the outcome is wanted.
pub(super) type Answer = oneshot::Sender<Result<Switched, SwitchFailure>>;

/// A wish that has not been answered.
pub(super) struct Attempt {
    pub begin: Begin,
    pub stalls: Vec<RankStall>,
    /// Epoch of the gang before.
    pub before: Epoch,
    /// Why it is broken; the ranks that are left have some time to bring it to an end.
    pub broken: Option<String>,
    limit: Duration,
    deadline: Instant,
    retries: u32,
    pausing: bool,
    /// An agent has begun anew since this attempt did.
    agent_returned: bool,
    answer: Answer,
}

impl Attempt {
    /// A wish whose first attempt begins now; each may take as long as `limit`.
    pub fn new(begin: Begin, before: Epoch, limit: Duration, answer: Answer) -> Self {
        let deadline = Instant::now() + limit;
        Self {
            begin,
            stalls: Vec::new(),
            before,
            broken: None,
            limit,
            deadline,
            retries: 0,
            pausing: false,
            agent_returned: false,
            answer,
        }
    }

    /// When patience ends: with the attempt, or with the pause before the next.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it is between two attempts.
    pub fn is_pausing(&self) -> bool {
        self.pausing
    }

    /// The next attempt begins now.
    pub fn again(&mut self) {
        self.pausing = false;
        self.agent_returned = false;
        self.stalls.clear();
        self.deadline = Instant::now() + self.limit;
    }

    /// The attempt has taken too long, or is broken, and is being ended.
    pub fn extend(&mut self) {
        self.deadline = Instant::now() + GRACE;
    }

    /// An agent that says hello has forgotten what its ranks were told.
    pub fn agent_returns(&mut self) {
        self.agent_returned = true;
    }

    /// Whether to begin again after an attempt that came to nothing for `reason`; if so, the pause
    /// before it begins now. Ranks that are held stand still, and may be given another transport:
    /// they wait for nobody but their agents.
    pub fn pause_after(&mut self, reason: &Reason, held: bool) -> bool {
        let passing = match reason {
            Reason::Left { .. } | Reason::Veto { .. } => !held,
            Reason::AgentLost { .. } => true,
            // Its agent may have been away for all of the time.
            Reason::TimedOut { .. } => self.agent_returned,
            Reason::Died { .. } | Reason::CoordinatorLost | Reason::Cancelled => false,
        };
        if !passing || self.retries == RETRIES {
            return false;
        }
        self.pausing = true;
        self.deadline = Instant::now() + PAUSE * (1 << self.retries);
        self.retries += 1;
        true
    }

    /// Says how it ended.
    pub fn finish(self, failure: Option<SwitchFailure>) {
        let stalls = self.stalls;
        let result = failure.map_or(Ok(Switched { stalls }), Err);
        if self.answer.send(result).is_err() {
            debug!("nobody waits for the end of the switch any more");
        }
    }
}

//! A process in mid-switch whose coordinator is silent, or whose agent is lost.

use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;

use super::Shared;
use super::drain::NAP;
use crate::channel::ChannelError;

/// A wait for the coordinator that takes longer is told to the user, again and again.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a process that stands still waits for an agent, and for its coordinator's word, after
/// its own was lost: a guest starts another within seconds.
const ORPHANED: Duration = Duration::from_secs(60);
/// How long to wait between two attempts to find one meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// The search for another agent, which takes with it what is decided: others may have changed over
/// already. So the process stands still until the next one tells.
#[derive(Default)]
pub struct Search {
    since: Option<Instant>,
}

impl Search {
    /// Whether there was time enough for another to be found, and to tell.
    pub fn is_in_vain(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() > ORPHANED)
    }

    /// One attempt, after a pause in which `drive` is called, which says whether anything happened.
    pub fn step(&mut self, shared: &Shared, error: &ChannelError, mut drive: impl FnMut() -> bool) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            crate::log::warning!(
                "the agent is lost in the middle of a switch ({error}); this process stands still \
                 until there is another, for {ORPHANED:?} at most"
            );
        }
        let next = Instant::now() + PAUSE;
        while Instant::now() < next {
            if !drive() {
                std::thread::sleep(NAP);
            }
        }
        shared.meet_again();
    }
}

/// Nothing is guessed where a coordinator is gone: a process that stands still for it cannot know
/// whether others have changed over, and waits for the next one. The user is told.
pub struct Silence {
    next: Instant,
}

impl Silence {
    pub fn begin() -> Silence {
        Silence {
            next: Instant::now() + SILENCE,
        }
    }

    pub fn tell(&mut self, epoch: Epoch, stand: &str) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + SILENCE;
            crate::log::warning!(
                "switch {epoch}: this process {stand}; nothing was heard of its coordinator for \
                 {SILENCE:?}: is symvirtd running on the host?"
            );
        }
    }
}

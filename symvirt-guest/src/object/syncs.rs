//! Synchronous sends across a switch.
//!
//! A drain at the receiver pulls the message, which completes the real send although nothing was
//! matched. Such a completion is parked until the receiver says that the application has taken
//! the message (`Matched`).
//!
//! ```text
//!   start ──► under way ── completion ───────────────────────────► delivered
//!              │     ▲                                                 ▲
//!    announced │     │ Matched                                         │
//!    to a drain▼     │                                                 │
//!             in doubt ── completion ──► parked ── Matched ────────────┘
//! ```

use std::sync::Mutex;

use symvirt_protocol::ids::WorkerId;
use symvirt_protocol::rank::SyncSend;

use super::lock;
use super::request::Request;

/// What a completion means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The message was matched.
    Matched,
    /// The message was taken by the receiver's drain, or by its application: not known yet.
    Unproved,
}

struct UnderWay {
    request: *mut Request,
    announcement: SyncSend,
    /// The drain that it was announced to: its completion proves nothing.
    doubted_in: Option<u64>,
    /// It has completed, in doubt.
    parked: bool,
    /// Its receiver has said that it has matched it.
    proved: bool,
}

#[derive(Default)]
struct State {
    /// Drains begun so far.
    drains: u64,
    next: u64,
    sends: Vec<UnderWay>,
}

/// The synchronous sends of one worker that are under way. They take a lock: rare, and the match
/// they wait for costs a message back anyway.
#[derive(Default)]
pub struct Syncs(Mutex<State>);

// SAFETY: the requests are changed only by the thread that owns the worker.
unsafe impl Send for State {}

impl Syncs {
    /// A send has started, or is about to.
    pub fn started(&self, request: *mut Request, from: WorkerId, to: WorkerId, tag: u64) {
        let mut state = lock(&self.0);
        state.next += 1;
        // Unique within the process: a worker's index above its own count.
        let id = (u64::from(from.index) << 40) | state.next;
        let announcement = SyncSend {
            sender: from.process,
            id,
            worker: to,
            tag,
        };
        state.sends.push(UnderWay {
            request,
            announcement,
            doubted_in: None,
            parked: false,
            proved: false,
        });
    }

    /// A send that completed, or was refused, before it could be under way.
    pub fn forget(&self, request: *mut Request) {
        lock(&self.0)
            .sends
            .retain(|send| send.request != request || send.parked);
    }

    /// The real send has completed.
    pub fn ended(&self, request: *mut Request) -> Ended {
        let mut state = lock(&self.0);
        let Some(at) = state.sends.iter().position(|send| send.request == request) else {
            return Ended::Matched;
        };
        if state.sends[at].doubted_in.is_some() {
            state.sends[at].parked = true;
            return Ended::Unproved;
        }
        state.sends.swap_remove(at);
        Ended::Matched
    }

    /// The gate is closed and the counters are published: from now on the completion of what is
    /// under way proves nothing, because the receiver may be draining already. Returns the sends
    /// not matched yet; parked ones of earlier switches are left out: their receiver knows.
    pub fn begin_drain(&self) -> Vec<SyncSend> {
        let mut state = lock(&self.0);
        state.drains += 1;
        let this = state.drains;
        let under_way = state.sends.iter_mut();
        let under_way = under_way.filter(|send| !send.parked && !send.proved);
        let announced = under_way.map(|send| {
            send.doubted_in = Some(this);
            send.announcement
        });
        announced.collect()
    }

    /// The switch was abandoned, and nobody has drained: what completed meanwhile was matched.
    pub fn abandon_drain(&self) -> Vec<*mut Request> {
        let mut state = lock(&self.0);
        let this = Some(state.drains);
        state.end_doubt(|send| send.doubted_in == this)
    }

    /// The receiver has matched them: the requests of those that have completed are to be
    /// delivered. Its word may come before the real send's completion, which then proves something.
    pub fn matched(&self, ids: &[u64]) -> Vec<*mut Request> {
        let is_matched = |send: &UnderWay| ids.contains(&send.announcement.id);
        let mut state = lock(&self.0);
        for send in state.sends.iter_mut().filter(|send| is_matched(send)) {
            send.proved = true;
        }
        state.end_doubt(is_matched)
    }
}

impl State {
    /// Returns those that were parked, and are not under way any more.
    fn end_doubt(&mut self, about: impl Fn(&UnderWay) -> bool) -> Vec<*mut Request> {
        let mut parked = Vec::new();
        self.sends.retain_mut(|send| {
            if !about(send) {
                return true;
            }
            send.doubted_in = None;
            if send.parked {
                parked.push(send.request);
            }
            !send.parked
        });
        parked
    }
}

#[cfg(test)]
mod tests {
    use symvirt_protocol::ids::ProcId;

    use super::*;

    fn worker(process: u64) -> WorkerId {
        WorkerId {
            process: ProcId(process),
            index: 0,
        }
    }

    /// Names of requests: they are never followed.
    fn request(number: usize) -> *mut Request {
        std::ptr::without_provenance_mut(number)
    }

    fn start(syncs: &Syncs, number: usize) {
        syncs.started(request(number), worker(1), worker(2), 7);
    }

    #[test]
    fn only_what_was_announced_to_a_drain_waits_for_the_receiver_s_word() {
        let syncs = Syncs::default();
        start(&syncs, 1);
        let announced = syncs.begin_drain();
        start(&syncs, 2);
        assert!(syncs.ended(request(2)) == Ended::Matched);
        assert!(syncs.ended(request(1)) == Ended::Unproved);
        assert_eq!(syncs.matched(&[announced[0].id]), [request(1)]);
    }

    #[test]
    fn a_match_may_be_told_before_the_completion() {
        let syncs = Syncs::default();
        start(&syncs, 1);
        let announced = syncs.begin_drain();
        assert_eq!(syncs.matched(&[announced[0].id]), []);
        assert!(syncs.ended(request(1)) == Ended::Matched);
    }

    #[test]
    fn an_abandoned_drain_proves_what_completed_meanwhile() {
        let syncs = Syncs::default();
        start(&syncs, 1);
        start(&syncs, 2);
        assert_eq!(syncs.begin_drain().len(), 2);
        assert!(syncs.ended(request(1)) == Ended::Unproved);
        assert_eq!(syncs.abandon_drain(), [request(1)]);
        assert!(syncs.ended(request(2)) == Ended::Matched);
    }
}

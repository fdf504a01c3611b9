//! Synchronous sends across a switch.
//!
//! A drain at the receiver pulls the message, which completes the real send although nothing was
//! matched. Such a completion is parked until the receiver says that the application has taken
//! the message (`Matched`).
//!
//! ```text
//!   start ──► under way ── completion ──────────────────────────► delivered
//!                │                                                    ▲
//!                └─ completion while draining ──► parked ── Matched ──┘
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
    /// The drain that it completed in.
    parked_in: Option<u64>,
    /// Its receiver has said that it has matched it.
    proved: bool,
}

#[derive(Default)]
struct State {
    draining: bool,
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
            parked_in: None,
            proved: false,
        });
    }

    /// A send that completed, or was refused, before it could be under way.
    pub fn forget(&self, request: *mut Request) {
        lock(&self.0)
            .sends
            .retain(|send| send.request != request || send.parked_in.is_some());
    }

    /// The real send has completed.
    pub fn ended(&self, request: *mut Request) -> Ended {
        let mut state = lock(&self.0);
        let draining = state.draining;
        let Some(at) = state.sends.iter().position(|send| send.request == request) else {
            return Ended::Matched;
        };
        if draining && !state.sends[at].proved {
            state.sends[at].parked_in = Some(state.drains);
            return Ended::Unproved;
        }
        state.sends.swap_remove(at);
        Ended::Matched
    }

    /// The gate is closed and the counters are published: from now on, until the change-over, a
    /// completion proves nothing, because the receiver may be draining already. Returns the sends
    /// not matched yet; parked ones of earlier switches are left out: their receiver knows.
    pub fn begin_drain(&self) -> Vec<SyncSend> {
        let mut state = lock(&self.0);
        state.draining = true;
        state.drains += 1;
        let under_way = state.sends.iter().filter(|send| send.parked_in.is_none());
        under_way.map(|send| send.announcement).collect()
    }

    /// The change-over is near: new sends are not concerned.
    pub fn end_drain(&self) {
        lock(&self.0).draining = false;
    }

    /// The switch was abandoned, and nobody has drained: what completed meanwhile was matched.
    pub fn abandon_drain(&self) -> Vec<*mut Request> {
        let mut state = lock(&self.0);
        state.draining = false;
        let this = state.drains;
        state.take_if(|send| send.parked_in == Some(this))
    }

    /// The receiver has matched them: their requests are to be delivered. Its word may come before
    /// the real send's completion, which then proves something.
    pub fn matched(&self, ids: &[u64]) -> Vec<*mut Request> {
        let is_matched = |send: &UnderWay| ids.contains(&send.announcement.id);
        let mut state = lock(&self.0);
        for send in state.sends.iter_mut().filter(|send| is_matched(send)) {
            send.proved = true;
        }
        state.take_if(|send| send.proved && send.parked_in.is_some())
    }
}

impl State {
    fn take_if(&mut self, wanted: impl Fn(&UnderWay) -> bool) -> Vec<*mut Request> {
        let taken = self.sends.iter().filter(|send| wanted(send));
        let taken = taken.map(|send| send.request).collect();
        self.sends.retain(|send| !wanted(send));
        taken
    }
}

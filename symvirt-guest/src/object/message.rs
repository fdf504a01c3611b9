//! A message that the application has probed with removal and not yet received.

use std::ffi::c_void;
use std::sync::Mutex;

use symvirt_ffi::ucp::TagRecvInfo;

use super::handle::Mark;
use super::lock;
use crate::spool::Block;

/// Where the message's bytes are.
pub enum Body {
    /// In the real worker: a rendezvous may still have to fetch them.
    Real(*mut c_void),
    /// In our memory.
    Drained(Block),
}

/// What `ucp_tag_probe_nb` hands out.
#[repr(C)]
pub struct Message {
    mark: Mark,
    pub info: TagRecvInfo,
    pub body: Body,
}

impl Message {
    /// Of a drained message that the application receives.
    pub fn drained(info: TagRecvInfo, body: Body) -> Message {
        let mark = Mark::Message;
        Message { mark, info, body }
    }
}

/// The probed messages of one worker, for the drain to fetch.
#[derive(Default)]
pub struct Messages(Mutex<Vec<*mut Message>>);

impl Messages {
    /// Makes a handle for the application.
    pub fn hand_out(&self, info: TagRecvInfo, body: Body) -> *mut c_void {
        let message = Box::into_raw(Box::new(Message::drained(info, body)));
        lock(&self.0).push(message);
        message.cast()
    }

    /// Takes a handle back; `None` if it is none of ours.
    pub fn take(&self, handle: *mut c_void) -> Option<Message> {
        let mut messages = lock(&self.0);
        let position = messages.iter().position(|known| known.cast() == handle)?;
        let message = messages.swap_remove(position);
        // SAFETY: made by `hand_out`, and removed from the list just now.
        Some(*unsafe { Box::from_raw(message) })
    }

    /// Those whose bytes are still in the real worker.
    pub fn in_real_worker(&self) -> Vec<*mut Message> {
        let messages = lock(&self.0);
        // SAFETY: members of the list are live.
        let is_real = |message: &*mut Message| unsafe { matches!((**message).body, Body::Real(_)) };
        messages.iter().copied().filter(is_real).collect()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        for message in lock(&self.0).drain(..) {
            // SAFETY: made by `hand_out` and never received.
            drop(unsafe { Box::from_raw(message) });
        }
    }
}

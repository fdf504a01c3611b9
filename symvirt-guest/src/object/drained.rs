//! Messages that a drain took out of the old worker before the application asked for them. Until
//! the list is empty every receive and probe looks here first: they are older than anything in
//! the new worker.
//!
//! While it is not decided that the switch takes place, they are only removed from the worker's
//! own list: their bytes are where they were, and stay there if the switch is abandoned.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use symvirt_ffi::ucp::{Tag, TagRecvInfo};
use symvirt_protocol::rank::SyncSend;

use super::lock;
use super::message::Body;
use crate::process::gang;
use crate::spool::Block;

/// A message that a drain has met.
pub struct DrainedMessage {
    pub info: TagRecvInfo,
    pub body: Body,
    /// Synchronous sends that its match proves.
    pub syncs: Vec<SyncSend>,
}

impl DrainedMessage {
    fn matches(&self, tag: Tag, mask: Tag) -> bool {
        (self.info.sender_tag ^ tag) & mask == 0
    }
}

/// In order of arrival.
#[derive(Default)]
pub struct Drained {
    count: AtomicUsize,
    queue: Mutex<VecDeque<DrainedMessage>>,
}

impl Drained {
    /// Whether the next receive or probe must look here.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Appends a message that was removed from the worker's list.
    pub fn push(&self, info: TagRecvInfo, real_message: *mut c_void) {
        let mut queue = lock(&self.queue);
        queue.push_back(DrainedMessage {
            info,
            body: Body::Real(real_message),
            syncs: Vec::new(),
        });
        self.count.store(queue.len(), Ordering::Release);
    }

    /// Those from position `from` on whose bytes are in the real worker, with their positions,
    /// which stay while the gate is closed; and where the list ends.
    pub fn in_real_worker(&self, from: usize) -> (Vec<(usize, *mut c_void, TagRecvInfo)>, usize) {
        let queue = lock(&self.queue);
        let real = queue.iter().enumerate().skip(from);
        let real = real.filter_map(|(position, message)| match message.body {
            Body::Real(real_message) => Some((position, real_message, message.info)),
            Body::Drained(_) => None,
        });
        (real.collect(), queue.len())
    }

    /// The bytes of the message at a position are in our memory now.
    pub fn fill(&self, position: usize, data: Block) {
        if let Some(message) = lock(&self.queue).get_mut(position) {
            message.body = Body::Drained(data);
        }
    }

    /// Attaches a synchronous send to the last message of its tag: when that is taken, so are all
    /// before it. `false` if there is none: the send was matched by a posted receive.
    pub fn attach(&self, sync: SyncSend) -> bool {
        let mut queue = lock(&self.queue);
        let last = queue
            .iter_mut()
            .rev()
            .find(|message| message.info.sender_tag == sync.tag);
        last.map(|message| message.syncs.push(sync)).is_some()
    }

    /// Takes the first message that matches, and tells whoever sent it synchronously.
    pub fn take(&self, tag: Tag, mask: Tag) -> Option<DrainedMessage> {
        let mut queue = lock(&self.queue);
        let position = queue
            .iter()
            .position(|message| message.matches(tag, mask))?;
        let mut message = queue.remove(position)?;
        self.count.store(queue.len(), Ordering::Release);
        drop(queue);
        gang::confirm(std::mem::take(&mut message.syncs));
        Some(message)
    }

    /// Describes the first message that matches.
    pub fn peek(&self, tag: Tag, mask: Tag) -> Option<TagRecvInfo> {
        lock(&self.queue)
            .iter()
            .find(|message| message.matches(tag, mask))
            .map(|found| found.info)
    }
}

//! Messages that a drain took out of the old worker before the application asked for them. Until
//! the list is empty every receive and probe looks here first: they are older than anything in
//! the new worker.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use symvirt_ffi::ucp::{Tag, TagRecvInfo};
use symvirt_protocol::rank::SyncSend;

use super::lock;
use crate::process::gang;

/// A message in our memory, packed.
pub struct DrainedMessage {
    pub info: TagRecvInfo,
    pub data: Vec<u8>,
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

    /// Appends a message that was taken out of the old worker.
    pub fn push(&self, message: DrainedMessage) {
        let mut queue = lock(&self.queue);
        queue.push_back(message);
        self.count.store(queue.len(), Ordering::Release);
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

//! Data of active messages that the application may fetch or keep after its handler has returned.
//!
//! UCX's own descriptors end with the real worker, at the next switch. So the application gets
//! ours:
//!
//! | message | what the application holds |
//! |---|---|
//! | rendezvous | the address of a descriptor; its bytes are fetched from the real worker, by the application or by a drain |
//! | eager, to a handler that asked for persistent data | the address of a copy in our memory |
//! | eager otherwise | nothing: it is told, as UCX may tell it too, that the data cannot be kept |
//!
//! The last costs no copy; a handler that does not insist on persistent data has to be prepared
//! for it, because UCX itself cannot keep what came by some transports.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Deref;
use std::sync::Mutex;

use super::lock;
use crate::real::real;
use crate::spool::Block;

/// Where a message's bytes are.
#[derive(Debug)]
pub enum Content {
    /// The sender has them: UCX's descriptor fetches them.
    Rendezvous(*mut c_void),
    /// On their way into our memory.
    Pulling,
    /// In our memory.
    Here(Bytes),
}

/// A message that the application has been told of, or will be.
#[derive(Debug)]
pub struct Descriptor {
    /// Bytes of the message.
    pub length: usize,
    /// The application was told of a rendezvous, wherever the bytes are now.
    pub is_rendezvous: bool,
    pub content: Content,
}

impl Descriptor {
    /// The message is not wanted: completes its sender's rendezvous, if it was one.
    ///
    /// # Safety
    /// Inside the gate; a descriptor of the real worker in use.
    pub unsafe fn release(self, real_worker: *mut c_void) {
        if let Content::Rendezvous(real_descriptor) = self.content {
            // SAFETY: by the caller's promise; kept by our callback, and released once.
            unsafe { (real().am_data_release)(real_worker, real_descriptor) };
        }
    }
}

/// What the application holds of a message: the `data` of its handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub data: *mut c_void,
    /// An address may be used again.
    serial: u64,
}

/// The descriptors of one worker.
#[derive(Default)]
pub struct Descriptors(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    /// By what the application holds; with serial number.
    known: HashMap<*mut c_void, (u64, Box<Descriptor>)>,
}

// SAFETY: the pointers are names, and UCX's descriptors are used by whoever owns the real worker.
unsafe impl Send for State {}

impl Descriptors {
    /// Names a rendezvous whose bytes are still with its sender.
    pub fn hold_rendezvous(&self, real_descriptor: *mut c_void, length: usize) -> Held {
        let descriptor = Box::new(Descriptor {
            length,
            is_rendezvous: true,
            content: Content::Rendezvous(real_descriptor),
        });
        self.add((&raw const *descriptor).cast_mut().cast(), descriptor)
    }

    /// Names bytes in our memory.
    pub fn hold_bytes(&self, bytes: Bytes) -> Held {
        let data = bytes.address();
        let descriptor = Box::new(Descriptor {
            length: bytes.len(),
            is_rendezvous: false,
            content: Content::Here(bytes),
        });
        self.add(data, descriptor)
    }

    fn add(&self, data: *mut c_void, descriptor: Box<Descriptor>) -> Held {
        let mut state = lock(&self.0);
        state.last += 1;
        let serial = state.last;
        state.known.insert(data, (serial, descriptor));
        Held { data, serial }
    }

    /// Takes the descriptor that the application fetches or releases; `None` if it is none of
    /// ours, or was taken before.
    pub fn take(&self, data: *mut c_void) -> Option<Descriptor> {
        let taken = lock(&self.0).known.remove(&data);
        taken.map(|(_, descriptor)| *descriptor)
    }

    /// Takes a descriptor that its handler did not want; `None` if the handler has taken it.
    pub fn take_unwanted(&self, held: Held) -> Option<Descriptor> {
        let mut state = lock(&self.0);
        match state.known.get(&held.data) {
            Some((serial, _)) if *serial == held.serial => {}
            Some(_) | None => return None,
        }
        let taken = state.known.remove(&held.data);
        taken.map(|(_, descriptor)| *descriptor)
    }

    /// UCX's descriptors of all messages whose bytes are still with their senders; the caller
    /// pulls them. With length.
    pub fn begin_pulling(&self) -> Vec<(Held, *mut c_void, usize)> {
        let mut found = Vec::new();
        for (&data, (serial, descriptor)) in &mut lock(&self.0).known {
            if let Content::Rendezvous(real_descriptor) = descriptor.content {
                descriptor.content = Content::Pulling;
                let serial = *serial;
                found.push((Held { data, serial }, real_descriptor, descriptor.length));
            }
        }
        found
    }

    /// Lengths of the messages whose bytes are still with their senders.
    pub fn unfetched(&self) -> Vec<usize> {
        let state = lock(&self.0);
        let known = state.known.values().map(|(_, descriptor)| descriptor);
        known
            .filter(|descriptor| matches!(descriptor.content, Content::Rendezvous(_)))
            .map(|descriptor| descriptor.length)
            .collect()
    }

    /// The bytes of a message have been pulled.
    pub fn fill(&self, held: Held, bytes: Block) {
        if let Some((_, descriptor)) = lock(&self.0).known.get_mut(&held.data) {
            let (memory, start) = (Memory::Spool(bytes), 0);
            descriptor.content = Content::Here(Bytes { memory, start });
        }
    }
}

/// Bytes at an aligned address that stays.
#[derive(Debug)]
pub struct Bytes {
    memory: Memory,
    start: usize,
}

/// Whose.
#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Spool(Block),
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Spool(block) => block,
        }
    }
}

impl Bytes {
    /// Whatever the application puts into messages wants no more, unless it says so.
    const ALIGN: usize = 16;

    /// A copy, at a multiple of `align` (a power of two; 0 and 1 ask for nothing).
    pub fn copy(bytes: &[u8], align: usize) -> Bytes {
        let align = align.max(Self::ALIGN);
        // One byte more: a message without any has an address of its own, too.
        let mut memory: Vec<u8> = Vec::with_capacity(bytes.len() + align);
        let start = memory.as_ptr().addr().next_multiple_of(align) - memory.as_ptr().addr();
        memory.resize(start, 0);
        memory.extend_from_slice(bytes);
        let memory = Memory::Heap(memory);
        Bytes { memory, start }
    }

    /// Where the bytes begin.
    pub fn address(&self) -> *mut c_void {
        self.memory
            .as_ptr()
            .wrapping_add(self.start)
            .cast_mut()
            .cast()
    }

    pub fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Writer;

    #[test]
    fn a_copy_is_aligned_as_asked_and_stays_where_it_is() {
        for align in [0, 1, 8, 64, 4096] {
            let bytes = Bytes::copy(&[7; 100], align);
            let address = bytes.address();
            assert_eq!(address.addr() % align.max(16), 0);
            let moved = bytes;
            assert_eq!(
                (moved.address(), moved.as_slice()),
                (address, &[7; 100][..])
            );
        }
    }

    #[test]
    fn messages_without_bytes_have_different_addresses() {
        let descriptors = Descriptors::default();
        let empty = || descriptors.hold_bytes(Bytes::copy(&[], 1));
        let (one, other) = (empty(), empty());
        assert_ne!(one.data, other.data);
        assert!(descriptors.take(one.data).is_some());
        assert!(descriptors.take(one.data).is_none());
        assert!(descriptors.take(other.data).is_some());
    }

    #[test]
    fn a_rendezvous_is_pulled_once_and_keeps_its_name() {
        let descriptors = Descriptors::default();
        let real_descriptor = std::ptr::dangling_mut::<c_void>();
        let held = descriptors.hold_rendezvous(real_descriptor, 3);
        assert_eq!(descriptors.unfetched(), [3]);
        assert_eq!(descriptors.begin_pulling(), [(held, real_descriptor, 3)]);
        assert_eq!(descriptors.begin_pulling(), []);
        assert_eq!(descriptors.unfetched(), []);
        let mut block = Writer::default().block(3);
        // SAFETY: the block's three bytes.
        unsafe { block.as_mut_ptr().copy_from(b"abc".as_ptr(), 3) };
        descriptors.fill(held, block);
        let taken = descriptors.take(held.data).expect("still named");
        let Content::Here(bytes) = taken.content else {
            panic!("{taken:?}");
        };
        assert_eq!((taken.length, bytes.as_slice()), (3, &b"abc"[..]));
    }

    #[test]
    fn an_address_that_is_used_again_is_another_message() {
        let descriptors = Descriptors::default();
        let data = std::ptr::dangling_mut::<c_void>();
        let descriptor = || {
            Box::new(Descriptor {
                length: 0,
                is_rendezvous: true,
                content: Content::Pulling,
            })
        };
        let fetched = descriptors.add(data, descriptor());
        assert!(descriptors.take(data).is_some());
        let newer = descriptors.add(data, descriptor());
        assert!(descriptors.take_unwanted(fetched).is_none());
        assert!(descriptors.take_unwanted(newer).is_some());
    }
}

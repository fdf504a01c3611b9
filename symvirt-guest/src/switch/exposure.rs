//! Registered memory, and the keys to that of peers, on a real side.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::ptr;

use symvirt_protocol::ids::MemoryId;
use symvirt_protocol::rank::Blob;

use super::side::{ContextSide, Side, SideError, by_object};
use crate::object::context::Context;
use crate::object::key::{self, Key};
use crate::object::lock;
use crate::object::memory::{Memory, real_key};
use crate::object::route::Reals;
use crate::object::worker::Worker;
use crate::real::real;

/// Real keys by the identity of ours.
pub type Keys = HashMap<u64, *mut c_void>;

impl Side {
    /// Registers a context's memory in its new real context, the last one made.
    ///
    /// # Errors
    /// UCX's, with the memory.
    pub(super) fn register_memory(&mut self, context: &Context) -> Result<(), SideError> {
        let Some(side) = self.contexts.last_mut() else {
            return Ok(());
        };
        let known = lock(&context.memories).clone();
        for pointer in known {
            // One at a time, so that the application is not kept from registering and releasing.
            let memories = lock(&context.memories);
            if memories.contains(&pointer) {
                register(side, pointer)?;
            }
        }
        Ok(())
    }

    /// Memory of peers to which there are keys over endpoints in use.
    pub fn opens(&self) -> Vec<MemoryId> {
        let mut opens = HashSet::new();
        for side in self.workers() {
            // SAFETY: workers are not destroyed during a round.
            unsafe { &*side.worker }.each_key(|key| {
                if let Some((route, memory)) = key.recipe
                    && side.greeting.contains(&route)
                {
                    opens.insert(memory);
                }
            });
        }
        opens.into_iter().collect()
    }

    /// Follows what the application has registered and released since the side was built; under
    /// the closed gate. Returns how peers reach what is new.
    ///
    /// # Errors
    /// UCX's, with the memory.
    pub(super) fn catch_up(&mut self) -> Result<Vec<Blob>, SideError> {
        let mut late: Vec<Blob> = Vec::new();
        for side in &mut self.contexts {
            // SAFETY: contexts are not destroyed during a round.
            let listed = lock(unsafe { &(*side.context).memories });
            let present: HashSet<_> = listed.iter().copied().collect();
            let (keeping, released): (Vec<_>, Vec<_>) = std::mem::take(&mut side.memories)
                .into_iter()
                .partition(|(memory, _)| present.contains(memory));
            side.memories = keeping;
            for (_, registered) in released {
                // SAFETY: registered in this context by this side.
                unsafe { (real().mem_unmap)(side.real, registered) };
            }
            let known: HashSet<_> = side.memories.iter().map(|&(memory, _)| memory).collect();
            for &memory in listed.iter().filter(|memory| !known.contains(*memory)) {
                if let Some(registered) = register(side, memory)? {
                    late.push(pack(side.real, memory, registered)?);
                }
            }
        }
        self.own.extend(late.iter().cloned());
        Ok(late)
    }

    /// What opens the memory registered on this side.
    pub(super) fn packed_keys(&self) -> impl Iterator<Item = Result<Blob, SideError>> {
        let memories = self.contexts.iter().flat_map(|side| {
            let entries = side.memories.iter();
            entries.map(|&(memory, registered)| (side.real, memory, registered))
        });
        memories.map(|(context, memory, registered)| pack(context, memory, registered))
    }

    /// Makes the keys that exist now: endpoints are wired up.
    ///
    /// # Errors
    /// UCX's, with the memory.
    pub(super) fn unpack_keys(&mut self) -> Result<(), SideError> {
        let taken = std::mem::take(&mut self.table);
        let table = by_object(&taken);
        let mut result = Ok(());
        for side in self.workers_mut() {
            let (twins, keys) = (&side.twins, &mut side.keys);
            // SAFETY: workers are not destroyed during a round.
            unsafe { &*side.worker }.each_key(|key| match unpack(key, twins, &table) {
                Ok(Some(real_key)) => {
                    keys.insert(key.id, real_key);
                }
                Ok(None) => {}
                Err(error) => result = Err(error),
            });
        }
        drop(table);
        self.table = taken;
        result
    }
}

/// Registers memory, listed or released during this round, on a side; `None` if it is gone.
fn register(
    side: &mut ContextSide,
    pointer: *const Memory,
) -> Result<Option<*mut c_void>, SideError> {
    // SAFETY: what is released during a round lives until its end.
    let memory = unsafe { &*pointer };
    let registered = memory
        .make_real(side.real)
        .map_err(|status| SideError::Memory {
            memory: memory.id,
            status,
        })?;
    side.memories
        .extend(registered.map(|registered| (pointer, registered)));
    Ok(registered)
}

/// What opens registered memory.
fn pack(
    context: *mut c_void,
    memory: *const Memory,
    registered: *mut c_void,
) -> Result<Blob, SideError> {
    // SAFETY: what is released during a round lives until its end.
    let object = unsafe { &*memory }.id;
    let bytes = real_key(context, registered).map_err(|status| SideError::Pack {
        memory: object,
        status,
    })?;
    Ok(Blob { object, bytes })
}

/// The real key of one of ours on a new side; `None` if peer or memory are gone.
fn unpack(
    key: &Key,
    twins: &Reals,
    table: &HashMap<MemoryId, &[u8]>,
) -> Result<Option<*mut c_void>, SideError> {
    let Some((route, memory)) = key.recipe else {
        return Ok(None);
    };
    let (Some(&twin), Some(packed)) = (twins.get(&route), table.get(&memory)) else {
        return Ok(None);
    };
    // SAFETY: a live endpoint of the new side, and what its UCX packed.
    let unpacked = unsafe { key::unpack(twin, packed.as_ptr().cast()) };
    unpacked
        .map(Some)
        .map_err(|status| SideError::Key { memory, status })
}

/// Takes the real keys out of a worker's; under the closed gate.
pub fn close(worker: &Worker) -> Keys {
    let mut keys = Keys::new();
    worker.each_key(|key| {
        let real_key = key.swap_real(ptr::null_mut());
        if !real_key.is_null() {
            keys.insert(key.id, real_key);
        }
    });
    keys
}

/// Takes the real registrations out of a context's memory; under the closed gate.
pub fn withdraw(context: &Context) -> Vec<(*const Memory, *mut c_void)> {
    let memories = lock(&context.memories);
    let withdrawn = memories.iter().filter_map(|&memory| {
        // SAFETY: listed memory is live.
        let registered = unsafe { &*memory }.swap_real(ptr::null_mut());
        (!registered.is_null()).then_some((memory, registered))
    });
    withdrawn.collect()
}

/// Gives a worker's keys their real ones on its new side; under the closed gate. Those that were
/// made since the others were prepared sleep until they are used, as those of endpoints that sleep.
/// What was prepared for a key that has been destroyed since then is destroyed again.
pub fn open(worker: &Worker, mut prepared: Keys) {
    worker.each_key(|key| {
        if let Some(opened) = prepared.remove(&key.id) {
            key.swap_real(opened);
        }
    });
    for stale in prepared.into_values() {
        // SAFETY: made by the new side, for a key that is gone.
        unsafe { (real().rkey_destroy)(stale) };
    }
}

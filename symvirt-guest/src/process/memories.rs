//! Registering memory, and the keys to that of peers.

use std::ffi::c_void;
use std::sync::Mutex;

use symvirt_ffi::ucp::MemMapParams;
use symvirt_ffi::ucs::Status;

use super::{endpoints, gang, round};
use crate::address::{self, Kind};
use crate::gate;
use crate::object::context::Context;
use crate::object::endpoint::Endpoint;
use crate::object::key::{self, Key};
use crate::object::lock;
use crate::object::memory::{Memory, copy_params, real_key};
use crate::object::near::Near;
use crate::real::real;
use crate::transfer::begin::CUT_OFF;

/// Registers memory in a context of ours.
///
/// # Errors
/// UCX's.
///
/// # Safety
/// `params` is readable by its `field_mask`.
pub unsafe fn map(context: &Context, params: *const MemMapParams) -> Result<*const Memory, Status> {
    // A side that is being built catches up under the closed gate.
    let _passage = gate::enter();
    // SAFETY: by the caller's promise.
    let asked = unsafe { copy_params(params) };
    let memory = Box::into_raw(Memory::create(context, asked, gang::next_object())?).cast_const();
    lock(&context.memories).push(memory);
    Ok(memory)
}

/// Takes memory out of a context; memory of ours is freed, at the latest when no switch knows it.
///
/// # Safety
/// The application's handle, not used any more.
pub unsafe fn unmap(context: &Context, memory: &Memory) -> Status {
    let _passage = gate::enter();
    lock(&context.memories).retain(|known| !std::ptr::eq(*known, memory));
    // SAFETY: by the caller's promise; made by `map`, and off the list just now.
    unsafe {
        // None is left where the memory went before it was released, and a switch came in between.
        let status = match memory.real() {
            registered if registered.is_null() => Status::OK,
            registered => (real().mem_unmap)(context.real(), registered),
        };
        round::keep_until_end(Box::from_raw(std::ptr::from_ref(memory).cast_mut()));
        status
    }
}

/// Takes out of a context what the application has left there: UCX would assert that there is none.
///
/// # Safety
/// The context is being destroyed.
pub unsafe fn unmap_rest(context: &Context) {
    let rest = lock(&context.memories).clone();
    for memory in rest {
        // SAFETY: listed memory is live, and by the caller's promise not used any more.
        unsafe { unmap(context, &*memory) };
    }
}

/// The key to memory as the application passes it around, in memory for `free`.
///
/// # Safety
/// Inside the gate; the places are writable.
pub unsafe fn pack_key(
    context: &Context,
    memory: &Memory,
    buffer: *mut *mut c_void,
    length: *mut usize,
) -> Status {
    if memory.real().is_null() {
        return Status::INVALID_ADDR;
    }
    let bytes = match real_key(context.real(), memory.real()) {
        Ok(bytes) => bytes,
        Err(status) => return status,
    };
    let blob = address::pack_key(memory.id, gang::epoch(), &memory.place(), &bytes);
    let copy = address::for_application(&blob);
    if copy.is_null() {
        return Status::NO_MEMORY;
    }
    // SAFETY: by the caller's promise.
    unsafe {
        buffer.write(copy.cast());
        length.write(blob.len());
    }
    Status::OK
}

/// A key of ours from what a peer packed, in whatever epoch.
///
/// # Errors
/// UCX's; [`Status::TIMED_OUT`] if the peer is in an epoch that this process does not reach.
///
/// # Safety
/// `packed` came out of `ucp_rkey_pack` of some process, whole.
pub unsafe fn unpack_key(endpoint: &Endpoint, packed: *const c_void) -> Result<*const Key, Status> {
    // SAFETY: by the caller's promise.
    let Some(parsed) = (unsafe { address::parse(Kind::Memory, packed.cast()) }) else {
        gang::block("a peer's memory is not libsymvirt's (ucp_ep_rkey_unpack)".to_owned());
        // SAFETY: by the caller's promise.
        return unsafe { unpack_foreign(endpoint, packed) };
    };
    endpoints::follow(&parsed)?;
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    let _inside = worker.enter();
    let bytes = gang::current(&parsed)?;
    if endpoint.is_asleep() && !endpoints::wake(endpoint) {
        return Err(CUT_OFF);
    }
    // SAFETY: what UCX packed in this epoch.
    let real = unsafe { key::unpack(endpoint.real(), bytes.as_ptr().cast())? };
    let recipe = endpoint.route.map(|route| (route, parsed.object));
    let near = parsed
        .place
        .and_then(|place| Near::open(place, parsed.object));
    Ok(worker.adopt_key(Key::new(worker, recipe, near, real)))
}

/// Lets a key open its memory that does not since the last switch: it was unpacked after the others
/// were prepared, or its endpoint was asleep. Whether it does now. Inside the gate.
#[cold]
#[inline(never)]
pub fn wake_key(key: &Key) -> bool {
    // Of several threads that use it one is first.
    static WAKING: Mutex<()> = Mutex::new(());
    let _one = lock(&WAKING);
    if !key.real().is_null() {
        return true;
    }
    let open = || {
        let (route, memory) = key.recipe.ok_or(Status::UNREACHABLE)?;
        // SAFETY: a worker outlives its keys.
        let endpoint = endpoints::connect(unsafe { &*key.worker }, route)?;
        let packed = gang::reach(memory)?.ok_or(Status::UNREACHABLE)?;
        // SAFETY: a live endpoint of the side in use, and what its UCX packed.
        unsafe { key::unpack(endpoint, packed.as_ptr().cast()) }
    };
    match open() {
        Ok(opened) => _ = key.swap_real(opened),
        Err(status) => crate::log::debug!("a key to {:?}: {status}", key.recipe),
    }
    !key.real().is_null()
}

/// A key that no switch can make again.
unsafe fn unpack_foreign(endpoint: &Endpoint, packed: *const c_void) -> Result<*const Key, Status> {
    // SAFETY: a worker outlives its endpoints.
    let worker = unsafe { &*endpoint.worker };
    let _inside = worker.enter();
    if endpoint.is_asleep() && !endpoints::wake(endpoint) {
        return Err(CUT_OFF);
    }
    // SAFETY: plain UCX has packed it.
    let real = unsafe { key::unpack(endpoint.real(), packed)? };
    Ok(worker.adopt_key(Key::new(worker, None, None, real)))
}

/// Destroys a key.
///
/// # Safety
/// Inside the gate; the application's handle, not used any more.
pub unsafe fn destroy_key(key: &Key) {
    // SAFETY: a worker outlives its keys.
    let worker = unsafe { &*key.worker };
    // SAFETY: by the caller's promise; nobody uses the real key but over ours.
    unsafe {
        // None is left where the memory went before the key, and a switch came in between.
        if !key.real().is_null() {
            (real().rkey_destroy)(key.real());
        }
        worker.drop_key(key);
    }
}

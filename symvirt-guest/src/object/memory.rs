//! Registered memory. It outlives every context that registers it: memory that UCX was to
//! allocate is ours, so that it keeps its address and content over a switch.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

use symvirt_ffi::flags::{mem_map, mem_map_param};
use symvirt_ffi::ucp::MemMapParams;
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::MemoryId;
use symvirt_protocol::packed::Place;

use super::context::Context;
use super::handle::Mark;
use super::pages::{self, Pages};
use crate::real::real;

/// `UCS_MEMORY_TYPE_HOST`
const HOST: u32 = 0;

/// Our `ucp_mem_h`.
#[repr(C)]
pub struct Memory {
    mark: Mark,
    real: AtomicPtr<c_void>,
    pub id: MemoryId,
    /// To register it, in whichever context.
    params: MemMapParams,
    /// What was allocated for the application; goes with the memory.
    owned: Option<Pages>,
}

impl Memory {
    /// Registers memory in a context, and allocates it first if that is asked.
    ///
    /// # Errors
    /// UCX's; [`Status::UNSUPPORTED`] for device memory that UCX would have to allocate.
    pub fn create(
        context: &Context,
        asked: MemMapParams,
        id: MemoryId,
    ) -> Result<Box<Memory>, Status> {
        let mut params = asked;
        let allocate = asked.flags & mem_map::ALLOCATE != 0 || asked.address.is_null();
        let owned = if allocate && asked.length > 0 {
            if params.field_mask & mem_map_param::MEMORY_TYPE != 0 && params.memory_type != HOST {
                return Err(Status::UNSUPPORTED);
            }
            let pages = Pages::allocate(&asked, id)?;
            params.address = pages.address;
            params.field_mask |= mem_map_param::ADDRESS;
            params.flags &= !(mem_map::ALLOCATE | mem_map::FIXED);
            Some(pages)
        } else {
            None
        };
        let real = make_real(context.real(), &params)?;
        Ok(Box::new(Memory {
            mark: Mark::Memory,
            real: AtomicPtr::new(real),
            id,
            params,
            owned,
        }))
    }

    /// The real registration in use.
    #[inline(always)]
    pub fn real(&self) -> *mut c_void {
        self.real.load(Ordering::Relaxed)
    }

    /// Changes the real side; under the closed gate. Returns the old one.
    pub fn swap_real(&self, new: *mut c_void) -> *mut c_void {
        self.real.swap(new, Ordering::Relaxed)
    }

    /// Where it is, for processes of the same machine.
    pub fn place(&self) -> Place {
        Place {
            process: std::process::id(),
            descriptor: self.owned.as_ref().map_or(-1, Pages::descriptor),
            address: self.params.address.expose_provenance() as u64,
            length: self.params.length as u64,
        }
    }

    /// Registers it in another real context; `None` if the application has given it back to the
    /// kernel and not released it. It must not, but while it does not use the memory, nothing of
    /// UCX's minds.
    ///
    /// # Errors
    /// UCX's.
    pub fn make_real(&self, real_context: *mut c_void) -> Result<Option<*mut c_void>, Status> {
        match make_real(real_context, &self.params) {
            Err(_) if !self.is_there() => {
                let (address, length) = (self.params.address, self.params.length);
                crate::log::debug!("{length} bytes at {address:?} are gone, but not released");
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    /// Whether all of it is mapped. Of other memory than the host's the kernel knows nothing.
    fn is_there(&self) -> bool {
        let is_host = self.params.field_mask & mem_map_param::MEMORY_TYPE == 0
            || self.params.memory_type == HOST;
        !is_host || pages::are_mapped(self.params.address, self.params.length)
    }
}

fn make_real(real_context: *mut c_void, params: &MemMapParams) -> Result<*mut c_void, Status> {
    let mut memory = ptr::null_mut();
    // SAFETY: a live context, parameters that name live memory, and a place for the result.
    match unsafe { (real().mem_map)(real_context, params, &raw mut memory) } {
        Status::OK => Ok(memory),
        status => Err(status),
    }
}

/// UCX's packed remote key of registered memory.
///
/// # Errors
/// UCX's.
pub fn real_key(real_context: *mut c_void, real_memory: *mut c_void) -> Result<Vec<u8>, Status> {
    let (mut buffer, mut length) = (ptr::null_mut(), 0);
    // SAFETY: a live registration of the context, and places for the results.
    let status =
        unsafe { (real().rkey_pack)(real_context, real_memory, &raw mut buffer, &raw mut length) };
    if status != Status::OK {
        return Err(status);
    }
    // SAFETY: UCX describes `length` bytes that live until they are released.
    let bytes = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), length) }.to_vec();
    // SAFETY: packed just now.
    unsafe { (real().rkey_buffer_release)(buffer) };
    Ok(bytes)
}

/// The fields that the application announced, zero for the others.
///
/// # Safety
/// `params` is readable by its `field_mask`.
pub unsafe fn copy_params(params: *const MemMapParams) -> MemMapParams {
    const KEPT: u64 = mem_map_param::ADDRESS
        | mem_map_param::LENGTH
        | mem_map_param::FLAGS
        | mem_map_param::PROT
        | mem_map_param::MEMORY_TYPE;
    let mut copy = MemMapParams::default();
    // SAFETY: each field only if announced.
    unsafe {
        copy.field_mask = (*params).field_mask & KEPT;
        let has = |field| copy.field_mask & field != 0;
        if has(mem_map_param::ADDRESS) {
            copy.address = (*params).address;
        }
        if has(mem_map_param::LENGTH) {
            copy.length = (*params).length;
        }
        if has(mem_map_param::FLAGS) {
            copy.flags = (*params).flags;
        }
        if has(mem_map_param::PROT) {
            copy.prot = (*params).prot;
        }
        if has(mem_map_param::MEMORY_TYPE) {
            copy.memory_type = (*params).memory_type;
        }
    }
    copy
}

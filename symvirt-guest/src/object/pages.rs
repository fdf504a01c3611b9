//! Memory that UCX was to allocate. It is ours, so that it keeps its address and content over a
//! switch; and it is a file without a name in any folder, so that the processes of the same machine
//! can map it too, see [`super::near`].

use std::ffi::{CString, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use symvirt_ffi::flags::mem_map;
use symvirt_ffi::ucp::MemMapParams;
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::MemoryId;

/// Whole pages.
pub struct Pages {
    pub address: *mut c_void,
    length: usize,
    /// Others map it from here; `None` if the process has no descriptor left: then the memory is
    /// its own.
    file: Option<File>,
}

impl Pages {
    /// As `ucp_mem_map` promises: at the asked address if that is fixed, near it otherwise.
    ///
    /// # Errors
    /// [`Status::NO_MEMORY`]; [`Status::INVALID_PARAM`] if the fixed address is null.
    pub fn allocate(asked: &MemMapParams, id: MemoryId) -> Result<Pages, Status> {
        let file = shareable(asked.length, id);
        let (descriptor, mut flags) = match &file {
            Some(file) => (file.as_raw_fd(), libc::MAP_SHARED),
            None => (-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        };
        if asked.flags & mem_map::FIXED != 0 {
            if asked.address.is_null() {
                return Err(Status::INVALID_PARAM);
            }
            flags |= libc::MAP_FIXED;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (place, length) = (asked.address, asked.length);
        // SAFETY: new memory; at a fixed address the application has said that it may be replaced.
        let address = unsafe { libc::mmap(place, length, access, flags, descriptor, 0) };
        if address == libc::MAP_FAILED {
            return Err(Status::NO_MEMORY);
        }
        Ok(Pages {
            address,
            length,
            file,
        })
    }

    /// The descriptor that others map it from; -1 if none.
    pub fn descriptor(&self) -> i32 {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `allocate`, and registered nowhere any more.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

/// Whether there is memory, of whatever kind, at all of a range.
pub fn are_mapped(address: *const c_void, length: usize) -> bool {
    // SAFETY: sysconf(3) takes any name.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let before = address.addr() % page;
    // SAFETY: nothing is written at once (`MS_ASYNC`): the kernel looks whether it is there, no more.
    let found = unsafe {
        let start = address.byte_sub(before).cast_mut();
        libc::msync(start, length + before, libc::MS_ASYNC)
    };
    found == 0 || Errno::last() != Errno::ENOMEM
}

/// What the file of an allocation is called in `/proc`: nobody else's is called so.
pub fn name(id: MemoryId) -> String {
    format!("symvirt-{:016x}-{}", id.process.0, id.index)
}

fn shareable(length: usize, id: MemoryId) -> Option<File> {
    let name = CString::new(name(id)).ok()?;
    let file = File::from(memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC).ok()?);
    file.set_len(length.try_into().ok()?).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_there_until_a_page_of_it_is_given_back() {
        const PAGE: usize = 4096;
        let access = libc::PROT_READ;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), 3 * PAGE, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let inner = start.wrapping_byte_add(PAGE - 1);
        assert!(are_mapped(inner, PAGE + 2));
        // SAFETY: the page in the middle, of which nobody has a reference.
        unsafe { libc::munmap(start.wrapping_byte_add(PAGE), PAGE) };
        assert!(!are_mapped(inner, PAGE + 2));
        assert!(are_mapped(inner, 1));
        // SAFETY: as above, the other two.
        unsafe { libc::munmap(start, 3 * PAGE) };
    }
}

//! Registered memory that this process can reach by itself: its own, and what UCX was to allocate
//! for a process of the same machine. UCX would have made such an allocation a segment of its
//! shared-memory transports; ours survives every switch, so these transports do not know it, and
//! without this a put would be a message: 8 times as long for 8 bytes.
//!
//! ```text
//!   owner: Pages, a memfd ── rkey_pack: Place ──► peer: /proc/PID/fd/N, if it is called as the
//!                                                 owner's memory is ──► Near, mapped with the key
//! ```
//! A put or get of contiguous bytes is then a copy, an atomic an instruction, and over when it
//! returns. Everything else goes to UCX. The epoch's transports must let processes share memory;
//! for atomics none of them may have a device that does them: those of a device and of a processor
//! do not see each other. It is neither drained nor made anew at a switch.

use std::ffi::c_void;
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use symvirt_protocol::ids::MemoryId;
use symvirt_protocol::packed::Place;
use symvirt_protocol::transport::Transports;

use super::pages;
use crate::process::gang;

/// Memory of a peer, or of this process, as this process reaches it.
pub struct Near {
    /// Of the first byte here.
    local: *mut u8,
    /// Of the first byte at the owner.
    remote: u64,
    length: usize,
    is_mapped: bool,
}

impl Near {
    /// Maps registered memory, if that is possible: the owner runs on this machine, as a user that
    /// this process may look into.
    pub fn open(place: Place, id: MemoryId) -> Option<Near> {
        let (remote, length) = (place.address, usize::try_from(place.length).ok()?);
        if id.process == gang::process() && place.process == std::process::id() {
            return Some(Near {
                local: ptr::with_exposed_provenance_mut(usize::try_from(remote).ok()?),
                remote,
                length,
                is_mapped: false,
            });
        }
        if place.descriptor < 0 || length == 0 {
            return None;
        }
        let (process, descriptor) = (place.process, place.descriptor);
        let path = PathBuf::from(format!("/proc/{process}/fd/{descriptor}"));
        let called = fs::read_link(&path).ok()?;
        // A process of that number may be another one, on another machine or in another container.
        if !called.to_string_lossy().contains(&pages::name(id)) {
            return None;
        }
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        if file.metadata().ok()?.len() < place.length {
            return None;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, of a file that is as long.
        let local = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        (local != libc::MAP_FAILED).then(|| Near {
            local: local.cast(),
            remote,
            length,
            is_mapped: true,
        })
    }

    /// Where `length` bytes at the owner's address `remote` are here; `None` if the epoch's
    /// transports share no memory, or it is not all of that memory.
    #[inline(always)]
    pub fn at(&self, remote: u64, length: usize) -> Option<*mut c_void> {
        if self.is_mapped && ALLOWED.load(Ordering::Relaxed) & SHARE == 0 {
            return None;
        }
        let offset = usize::try_from(remote.checked_sub(self.remote)?).ok()?;
        let end = offset.checked_add(length)?;
        // SAFETY: within the memory.
        (end <= self.length).then(|| unsafe { self.local.add(offset).cast() })
    }

    /// As [`Near::at`], for atomics: `None`, too, if UCX's are a device's in this epoch.
    #[inline(always)]
    pub fn atomically_at(&self, remote: u64, length: usize) -> Option<*mut c_void> {
        if ALLOWED.load(Ordering::Relaxed) & ATOMICS == 0 {
            return None;
        }
        self.at(remote, length)
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if self.is_mapped {
            // SAFETY: mapped by `open`; the key goes, and nobody else knows the address.
            unsafe { libc::munmap(self.local.cast(), self.length) };
        }
    }
}

/// What the epoch's transports let this process do by itself.
static ALLOWED: AtomicU8 = AtomicU8::new(0);
/// With memory of other processes.
const SHARE: u8 = 1;
/// Atomically.
const ATOMICS: u8 = 2;

/// What those allow that the job was started with.
static NATIVE: OnceLock<u8> = OnceLock::new();

/// Reads `UCX_TLS`, on a thread of the application: helpers race with its `setenv`.
pub fn read_settings() {
    NATIVE.get_or_init(|| allowed(&std::env::var("UCX_TLS").unwrap_or_default()));
}

/// An epoch begins; under the closed gate, or before anything is sent.
pub fn begin_epoch(transports: &Transports) {
    let allowed = match &transports.tls {
        Some(tls) => allowed(tls),
        None => NATIVE.get().copied().unwrap_or(0),
    };
    ALLOWED.store(allowed, Ordering::Relaxed);
}

/// What a value of `UCX_TLS` allows.
fn allowed(tls: &str) -> u8 {
    let share = if shares(tls) { SHARE } else { 0 };
    let atomics = if has_no_device(tls) { ATOMICS } else { 0 };
    share | atomics
}

/// The names and aliases of UCX's transports that let processes map each other's memory
/// (`ucp_context.c`, 1.13 to 1.18).
const SHARING: [&str; 6] = ["sm", "shm", "mm", "posix", "sysv", "xpmem"];

/// Of those that do not, and have no device with atomics either: what they do is the processor's.
const WITHOUT_DEVICE: [&str; 5] = ["self", "loopback", "tcp", "cma", "knem"];

fn names(tls: &str) -> impl Iterator<Item = &str> {
    tls.split(',').map(str::trim)
}

/// Whether processes of one machine map each other's memory; all do, if it is empty.
fn shares(tls: &str) -> bool {
    let tls = tls.trim();
    if let Some(without) = tls.strip_prefix('^') {
        // Without one of them the others are left.
        return !names(without).any(|name| ["all", "sm", "shm", "mm"].contains(&name));
    }
    tls.is_empty() || names(tls).any(|name| name == "all" || SHARING.contains(&name))
}

/// Whether it names transports, and none with a device that might do atomics.
fn has_no_device(tls: &str) -> bool {
    names(tls).all(|name| SHARING.contains(&name) || WITHOUT_DEVICE.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_only_where_the_transports_are() {
        for sharing in [
            "",
            "all",
            "tcp,sm,self",
            " posix , self",
            "^tcp,ib",
            "^posix",
        ] {
            assert!(shares(sharing), "{sharing:?}");
        }
        for apart in ["tcp,self", "rc,ud,cma", "^sm", "^tcp,shm", "self"] {
            assert!(!shares(apart), "{apart:?}");
        }
    }

    #[test]
    fn atomics_are_the_processors_unless_a_device_might_do_them() {
        for plain in ["tcp,sm,self", "posix,self", " tcp , cma", "self", "tcp"] {
            assert!(has_no_device(plain), "{plain:?}");
        }
        for unknown in ["", "all", "^rc", "rc,sm", "tcp,sm,self,ib", "sm,cuda"] {
            assert!(!has_no_device(unknown), "{unknown:?}");
        }
    }

    #[test]
    fn only_bytes_within_the_memory_are_reached() {
        let mut bytes = [0_u8; 16];
        let near = Near {
            local: bytes.as_mut_ptr(),
            remote: 0x1000,
            length: bytes.len(),
            is_mapped: false,
        };
        let at = |remote, length| near.at(remote, length).map(|place| place.addr());
        let start = bytes.as_ptr().addr();
        assert_eq!(at(0x1000, 16), Some(start));
        assert_eq!(at(0x1008, 8), Some(start + 8));
        assert_eq!(at(0x1008, 9), None);
        assert_eq!(at(0xfff, 1), None);
        assert_eq!(at(0x1000, usize::MAX), None);
    }
}

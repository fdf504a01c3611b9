//! Who pays for memory ordering: the closer.

#[cfg(not(loom))]
mod real {
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    /// Keeps the compiler from moving accesses; the processor's part is in [`after_closing`].
    #[inline(always)]
    pub fn light_barrier() {
        compiler_fence(Ordering::SeqCst);
    }

    /// Makes every other thread of the process pass a full barrier: a thread either sees the gate
    /// closed, or is seen inside.
    pub fn after_closing() {
        fence(Ordering::SeqCst);
        // SAFETY: the command takes no pointers. It cannot fail once registered (membarrier(2)).
        unsafe {
            libc::syscall(
                libc::SYS_membarrier,
                libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED,
                0,
                0,
            )
        };
    }

    /// What leavers wrote before they left is visible from here on.
    pub fn acquire() {
        fence(Ordering::SeqCst);
    }

    /// Announces the process to membarrier; once, before the first close.
    ///
    /// # Errors
    /// The kernel's, where it refuses: then the gate must not be closed.
    pub fn announce() -> std::io::Result<()> {
        let command = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
        // SAFETY: the command takes no pointers.
        match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

#[cfg(not(loom))]
pub use real::*;

#[cfg(loom)]
mod modelled {
    use loom::sync::atomic::{Ordering, fence};

    /// Loom has no asymmetric barrier: the strongest symmetric one stands for both sides.
    pub fn light_barrier() {
        fence(Ordering::SeqCst);
    }

    pub fn after_closing() {
        fence(Ordering::SeqCst);
    }

    pub fn acquire() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(loom)]
pub use modelled::*;

//! Barriers of which one side pays for both: who passes often only keeps the compiler from moving
//! its accesses ([`light`]), who comes seldom has all other threads pass a full barrier ([`heavy`],
//! `membarrier(2)`). So of two accesses on each side, a store and then a load with its barrier
//! between them, at least one load sees the other side's store.

#[cfg(not(loom))]
mod real {
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    /// Of those who pass often.
    #[inline(always)]
    pub fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// Of those who come seldom.
    pub fn heavy() {
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

    /// Announces the process to membarrier; once, before the first heavy barrier.
    ///
    /// # Errors
    /// The kernel's, where it refuses: then nobody may rely on these barriers.
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
    pub fn light() {
        fence(Ordering::SeqCst);
    }

    pub fn heavy() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(loom)]
pub use modelled::*;

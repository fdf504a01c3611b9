//! One byte per thread: is it inside UCX?
//!
//! The byte is read and written twice on every message, so its address must cost one
//! instruction. Rust's stable thread-locals in a shared object call `__tls_get_addr`; on x86-64
//! the variable is therefore declared in assembly with the initial-exec model, which a preloaded
//! library may use (Drepper, *ELF Handling for Thread-Local Storage*, section 4.4.5).

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Where a thread stands.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Never entered: not yet in the gate's registry. Zero, what fresh thread memory holds.
    New = 0,
    /// Outside UCX.
    Idle = 1,
    /// Inside UCX, or in a callback that UCX made.
    Inside = 2,
    /// A helper of ours: passes the gate while it is closed.
    Helper = 3,
}

/// A thread's mode: written by the thread, read also by the closer of the gate.
#[derive(Debug)]
pub struct ModeCell(AtomicU8);

impl ModeCell {
    /// A cell of its own, for tests of the gate.
    #[cfg(all(test, loom))]
    pub fn new(mode: Mode) -> ModeCell {
        ModeCell(AtomicU8::new(mode as u8))
    }

    #[inline(always)]
    pub fn get(&self) -> Mode {
        match self.0.load(Relaxed) {
            0 => Mode::New,
            1 => Mode::Idle,
            2 => Mode::Inside,
            _ => Mode::Helper,
        }
    }

    #[inline(always)]
    pub fn set(&self, mode: Mode) {
        self.0.store(mode as u8, Relaxed);
    }
}

/// This thread's mode. It lives until the thread ends: whoever hands it to another thread takes
/// it back before (`life::Registration`).
#[cfg(not(loom))]
#[inline(always)]
pub fn mode() -> &'static ModeCell {
    // SAFETY: the address is this thread's own byte, and zero bytes are `Mode::New`.
    unsafe { &*slot().cast::<ModeCell>() }
}

/// Whether this thread is a helper of ours: application callbacks must not run on it.
#[cfg(not(loom))]
#[inline(always)]
pub fn is_helper() -> bool {
    mode().get() == Mode::Helper
}

#[cfg(all(target_arch = "x86_64", not(loom)))]
std::arch::global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 8",
    ".hidden symvirt_thread_mode",
    ".globl symvirt_thread_mode",
    ".type symvirt_thread_mode, @object",
    ".size symvirt_thread_mode, 8",
    "symvirt_thread_mode:",
    ".zero 8",
    ".popsection",
);

#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline(always)]
fn slot() -> *mut u8 {
    let address: *mut u8;
    // SAFETY: reads the thread pointer and the constant offset of the variable declared above.
    unsafe {
        std::arch::asm!(
            "mov {0}, qword ptr [rip + symvirt_thread_mode@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) address,
            options(pure, nomem, nostack),
        );
    }
    address
}

#[cfg(all(not(target_arch = "x86_64"), not(loom)))]
#[inline(always)]
fn slot() -> *mut u8 {
    thread_local! {
        static MODE: std::cell::Cell<u8> = const { std::cell::Cell::new(0) };
    }
    MODE.with(|mode| mode.as_ptr())
}

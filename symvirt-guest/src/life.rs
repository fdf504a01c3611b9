//! Threads, fork and exit of the process that the library lives in.

use std::cell::Cell;

use crate::gate::GATE;
use crate::tls::{Mode, ModeCell};

/// Takes the thread's mode back from the gate when the thread ends: its memory is gone then.
struct Registration(Cell<Option<&'static ModeCell>>);

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(mode) = self.0.take() {
            GATE.unregister(mode);
        }
    }
}

thread_local! {
    static REGISTRATION: Registration = const { Registration(Cell::new(None)) };
}

/// Makes the gate look at this thread until it ends. A thread that calls UCP from one of its own
/// last destructors is let through unregistered: no switch waits for it.
pub fn register_thread(mode: &'static ModeCell) {
    let registered = REGISTRATION.try_with(|registration| registration.0.set(Some(mode)));
    match registered {
        Ok(()) => GATE.register(mode),
        Err(_) => mode.set(Mode::Idle),
    }
}

/// Runs `body` on a new thread that blocks all signals, so that handlers of the application
/// never run on it, and that passes the gate while it is closed.
///
/// # Errors
/// When the system has no thread to give.
pub fn spawn_helper(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let all = nix::sys::signal::SigSet::all();
    let before = all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            crate::tls::mode().set(Mode::Helper);
            body();
        });
    before.thread_set_mask()?;
    spawned
}

/// After a fork without exec the child has no helper threads: it passes through and never
/// switches. Installed once.
pub fn install_fork_handler() {
    unsafe extern "C" fn in_child() {
        GATE.reset_after_fork();
        crate::process::forget_helpers_after_fork();
    }
    // SAFETY: the handler only stores to atomics, which is safe after a fork.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// A process may end without destroying what it made of UCX, whose destructors must not meet a
/// helper: the process leaves the gang before they run. Installed once, after UCX was loaded.
pub fn install_exit_handler() {
    extern "C" fn at_exit() {
        if !crate::tls::is_helper() {
            crate::process::gang::leave_at_exit();
        }
    }
    // SAFETY: a function of this library, which is never unloaded.
    unsafe { libc::atexit(at_exit) };
}

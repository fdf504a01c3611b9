//! The process's gate, as the exports pass it.

use super::Gate;
use crate::tls::{self, Mode};

/// The process's gate.
pub static GATE: Gate = Gate::new();

/// A passage through the gate; dropping it leaves.
pub struct Passage {
    leave: bool,
}

/// Passes the process's gate if it is open and the thread is outside, or else nothing: the caller
/// must go on to [`enter`]. On this way the compiler knows that the drop leaves.
#[inline(always)]
pub fn enter_at_once() -> Option<Passage> {
    let mode = tls::mode();
    (mode.get() == Mode::Idle && GATE.try_enter(mode)).then(|| Passage { leave: true })
}

/// Passes the process's gate, or waits until it opens. A thread that is already inside (an
/// application callback that calls UCP) and a helper pass at once.
#[inline(always)]
pub fn enter() -> Passage {
    enter_at_once().unwrap_or_else(enter_slowly)
}

#[cold]
fn enter_slowly() -> Passage {
    let mode = tls::mode();
    match mode.get() {
        Mode::Inside | Mode::Helper => return Passage { leave: false },
        Mode::New => crate::life::register_thread(mode),
        Mode::Idle => {}
    }
    while !GATE.try_enter(mode) {
        GATE.wait_until_open();
    }
    Passage { leave: true }
}

impl Drop for Passage {
    #[inline(always)]
    fn drop(&mut self) {
        if self.leave {
            GATE.leave(tls::mode());
        }
    }
}

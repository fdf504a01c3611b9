//! Loom model: `RUSTFLAGS="--cfg loom" cargo test -p symvirt-guest --release gate`.

use std::sync::Mutex;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::{Futex, Gate};
use crate::tls::{Mode, ModeCell};

/// What the gate protects: the pointer to the real side.
struct Bed {
    gate: Gate,
    real: UnsafeCell<u32>,
}

#[test]
fn nobody_is_inside_while_the_gate_is_closed() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let mode: &'static ModeCell = Box::leak(Box::new(ModeCell::new(Mode::Idle)));
        let bed = Arc::new(Bed {
            gate: Gate {
                closed: Futex::new(0),
                left: Futex::new(0),
                waiting: Futex::new(0),
                threads: Mutex::new(vec![mode]),
            },
            real: UnsafeCell::new(0),
        });
        let application = {
            let bed = bed.clone();
            loom::thread::spawn(move || {
                while !bed.gate.try_enter(mode) {
                    bed.gate.wait_until_open();
                }
                // SAFETY: inside the gate; loom reports the race if the gate is wrong.
                bed.real.with(|real| unsafe { assert!(*real <= 1) });
                bed.gate.leave(mode);
            })
        };
        bed.gate
            .close(Duration::MAX)
            .expect("the application leaves");
        // SAFETY: the gate is closed.
        bed.real.with_mut(|real| unsafe { *real = 1 });
        bed.gate.open();
        application.join().expect("no panic");
    });
}

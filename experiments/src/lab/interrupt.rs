//! Beds go down with the process that is asked to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::ledger::Ledger;

/// The beds of this process.
static OPEN: Mutex<Vec<Ledger>> = Mutex::new(Vec::new());

/// Whether this process was asked to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Whether beds are being taken down because this process was asked to end: what fails in them now
/// says nothing about what is under test.
pub fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Takes the bed down when this process is asked to end. One thread serves all beds of the
/// process: it must not end the process before every one of them is gone.
pub(super) fn end_on_signals(ledger: &Ledger) {
    static WATCH: Once = Once::new();
    OPEN.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(ledger.clone());
    WATCH.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        std::thread::spawn(move || {
            let Some(signal) = signals.forever().next() else {
                return;
            };
            ENDING.store(true, Ordering::SeqCst);
            eprintln!("signal {signal}: taking the test bed down");
            let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
            for ledger in open.iter() {
                if let Err(error) = ledger.close() {
                    eprintln!("take down the test bed: {error}");
                }
            }
            std::process::exit(128 + signal);
        });
    });
}

//! Other users of RDMA in the process, which take part in a switch (`symvirt_add`).
//!
//! ```text
//!   idle ── prepare ─► prepared ── release ─► released ── acquire ─► idle
//!     ▲       │ refuses    │
//!     └───────┘◄── abort ──┘
//! ```
//! They are asked in the order of their addition, and let go in the opposite one: a library that
//! was built upon another one comes later. Callbacks run on helper threads, one at a time: the list
//! is locked meanwhile. It changes only between rounds.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Mutex;

use symvirt_ffi::symvirt::{Callback, Participant as Given, Switch};
use symvirt_protocol::ids::Epoch;
use symvirt_protocol::transport::Transports;

use super::round;
use crate::object::lock;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    Prepared,
    Released,
}

struct Participant {
    name: String,
    given: Given,
    stage: Stage,
}

// SAFETY: the application promises that its callbacks may be called by any thread, with the
// context that it gave for that.
unsafe impl Send for Participant {}

static PARTICIPANTS: Mutex<Vec<Participant>> = Mutex::new(Vec::new());

/// A switch as participants see it.
#[derive(Clone, Copy)]
pub struct Proposal<'a> {
    pub epoch: Epoch,
    /// The job stands still from release to acquire.
    pub hold: bool,
    /// `None` while they are not known.
    pub transports: Option<&'a Transports>,
}

/// Adds a participant. Waits for the end of a round under way, which it vetoes.
///
/// # Safety
/// The callbacks may be called with the context until it is removed.
pub unsafe fn add(name: String, given: Given) {
    let _change = round::change("a participant is being added");
    lock(&PARTICIPANTS).push(Participant {
        name,
        given,
        stage: Stage::Idle,
    });
}

/// Removes the participant of this name and context; `false` if there is none. As [`add`].
pub fn remove(name: &str, context: *mut c_void) -> bool {
    let _change = round::change("a participant is being removed");
    let mut all = lock(&PARTICIPANTS);
    let is_it = |one: &Participant| one.name == name && one.given.context == context;
    let position = all.iter().position(is_it);
    position.map(|position| all.remove(position)).is_some()
}

/// Proposes a switch.
///
/// # Errors
/// The first refusal, for the veto; those asked before it are told by [`abort`].
pub fn prepare(proposal: Proposal<'_>) -> Result<(), String> {
    let words = Words::of(proposal);
    for one in lock(&PARTICIPANTS).iter_mut() {
        one.call(one.given.prepare, &words)
            .map_err(|reason| format!("participant {} refuses: {reason}", one.name))?;
        one.stage = Stage::Prepared;
    }
    Ok(())
}

/// The old transports are not used any more: those that were asked let go.
pub fn release(proposal: Proposal<'_>) {
    let words = Words::of(proposal);
    let mut all = lock(&PARTICIPANTS);
    let asked = all.iter_mut().rev();
    for one in asked.filter(|one| one.stage == Stage::Prepared) {
        one.stage = Stage::Released;
        if let Err(reason) = one.call(one.given.release, &words) {
            crate::log::error!(
                "participant {} has not released its resources: {reason}; a device that it keeps \
                 open cannot be unplugged",
                one.name
            );
        }
    }
}

/// The new transports can be used.
pub fn acquire(proposal: Proposal<'_>) {
    let words = Words::of(proposal);
    let mut all = lock(&PARTICIPANTS);
    let released = all.iter_mut();
    for one in released.filter(|one| one.stage == Stage::Released) {
        one.stage = Stage::Idle;
        if let Err(reason) = one.call(one.given.acquire, &words) {
            crate::log::error!(
                "participant {} runs without its resources since switch {}: {reason}",
                one.name,
                proposal.epoch
            );
        }
    }
}

/// The switch does not take place.
pub fn abort(proposal: Proposal<'_>) {
    let words = Words::of(proposal);
    let mut all = lock(&PARTICIPANTS);
    let asked = all.iter_mut().rev();
    for one in asked.filter(|one| one.stage == Stage::Prepared) {
        one.stage = Stage::Idle;
        if let Some(callback) = one.given.abort {
            // SAFETY: by the promise of `add`; the description lives until the callback returns.
            unsafe { callback(one.given.context, &raw const words.switch) };
        }
    }
}

impl Participant {
    fn call(&self, callback: Callback, words: &Words) -> Result<(), String> {
        let Some(callback) = callback else {
            return Ok(());
        };
        // SAFETY: by the promise of `add`; the description lives until the callback returns.
        let reason = unsafe { callback(self.given.context, &raw const words.switch) };
        if reason.is_null() {
            return Ok(());
        }
        // SAFETY: symvirt.h asks for a string that lives until the next callback.
        let reason = unsafe { CStr::from_ptr(reason) };
        Err(reason.to_string_lossy().into_owned())
    }
}

/// A proposal in C's words.
struct Words {
    switch: Switch,
    /// What the switch's pointers lead to.
    _owned: [Option<CString>; 2],
}

impl Words {
    fn of(proposal: Proposal<'_>) -> Words {
        let own = |text: Option<&String>| text.and_then(|text| CString::new(text.as_str()).ok());
        let known = proposal.transports;
        let tls = own(known.and_then(|transports| transports.tls.as_ref()));
        let net_devices = own(known.and_then(|transports| transports.net_devices.as_ref()));
        let pointer = |text: &Option<CString>| -> *const c_char {
            text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
        };
        let switch = Switch {
            size: size_of::<Switch>(),
            epoch: proposal.epoch.0,
            hold: proposal.hold.into(),
            tls: pointer(&tls),
            net_devices: pointer(&net_devices),
        };
        let _owned = [tls, net_devices];
        Words { switch, _owned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a participant notes down; the first letter names it.
    struct Diary {
        name: char,
        refuses: bool,
    }

    static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn note(context: *mut c_void, what: &str) -> bool {
        // SAFETY: the contexts of this test.
        let diary = unsafe { &*context.cast::<Diary>() };
        lock(&NOTES).push(format!("{}:{what}", diary.name));
        diary.refuses
    }

    unsafe extern "C" fn prepare_it(context: *mut c_void, _: *const Switch) -> *const c_char {
        match note(context, "prepare") {
            true => c"a checkpoint is being written".as_ptr(),
            false => std::ptr::null(),
        }
    }

    unsafe extern "C" fn release_it(context: *mut c_void, _: *const Switch) -> *const c_char {
        note(context, "release");
        std::ptr::null()
    }

    unsafe extern "C" fn acquire_it(context: *mut c_void, change: *const Switch) -> *const c_char {
        // SAFETY: lives until this returns.
        let tls = unsafe { CStr::from_ptr((*change).tls) };
        assert_eq!(tls, c"tcp");
        note(context, "acquire");
        std::ptr::null()
    }

    unsafe extern "C" fn abort_it(context: *mut c_void, _: *const Switch) {
        note(context, "abort");
    }

    fn notes() -> String {
        std::mem::take(&mut *lock(&NOTES)).join(" ")
    }

    /// One test: there is one list.
    #[test]
    fn participants_are_called_in_their_order_and_a_refusal_is_named() {
        let mut diaries = ['a', 'b'].map(|name| Diary {
            name,
            refuses: false,
        });
        let [a, b] = &mut diaries;
        let contexts: [*mut c_void; 2] = [(&raw mut *a).cast(), (&raw mut *b).cast()];
        for (name, context) in ["a", "b"].into_iter().zip(contexts) {
            let given = Given {
                size: size_of::<Given>(),
                name: std::ptr::null(),
                context,
                prepare: Some(prepare_it),
                release: Some(release_it),
                acquire: Some(acquire_it),
                abort: Some(abort_it),
            };
            // SAFETY: the contexts live until they are removed.
            unsafe { add(name.to_owned(), given) };
        }
        let transports = Transports {
            tls: Some("tcp".to_owned()),
            net_devices: None,
        };
        let proposal = Proposal {
            epoch: Epoch(3),
            hold: false,
            transports: Some(&transports),
        };
        assert_eq!(prepare(proposal), Ok(()));
        release(proposal);
        acquire(proposal);
        abort(proposal);
        assert_eq!(
            notes(),
            "a:prepare b:prepare b:release a:release a:acquire b:acquire"
        );
        // SAFETY: the context of `b`.
        unsafe { (*contexts[1].cast::<Diary>()).refuses = true };
        let refusal = prepare(proposal).expect_err("b refuses");
        assert_eq!(
            refusal,
            "participant b refuses: a checkpoint is being written"
        );
        abort(proposal);
        assert_eq!(notes(), "a:prepare b:prepare a:abort");
        assert!(remove("b", contexts[1]) && !remove("b", contexts[1]));
        assert!(!remove("a", contexts[1]) && remove("a", contexts[0]));
        assert_eq!(prepare(proposal), Ok(()));
        assert_eq!(notes(), "");
    }
}

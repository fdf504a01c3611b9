//! Functions that are passed on without a look at their arguments, or after one look at the first.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use symvirt_ffi::ucs::Status;

use crate::object::lock;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the trampolines are written for x86-64 only");

type Slot = AtomicPtr<c_void>;

macro_rules! slots {
    ($($name:ident),*) => {
        /// Address of each real function; [`absent`] until it is found.
        #[allow(non_upper_case_globals, reason = "named as the functions they lead to")]
        mod slot {
            use super::super::{Slot, absent};
            $(pub static $name: Slot = Slot::new(absent as *mut std::ffi::c_void);)*
        }
        pub const SLOTS: &[(&str, &super::Slot)] = &[$((stringify!($name), &slot::$name)),*];
    };
}

macro_rules! forwarded {
    ($($name:ident),* $(,)?) => {
        slots!($($name),*);
        $(
            /// Jumps to the real function.
            ///
            /// # Safety
            /// As the real one.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() {
                std::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym slot::$name)
            }
        )*
    };
}

macro_rules! guarded {
    ($($name:ident),* $(,)?) => {
        slots!($($name),*);
        $(
            /// Jumps to the real function, unless the first argument is a handle of ours.
            ///
            /// # Safety
            /// As the real one.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() {
                std::arch::naked_asm!(
                    "mov rax, qword ptr [rdi]",
                    "shr rax, 8",
                    "movabs r11, {prefix}",
                    "cmp rax, r11",
                    "je 2f",
                    "jmp qword ptr [rip + {slot}]",
                    "2:",
                    "lea rdi, [rip + 3f]",
                    "jmp {refuse}",
                    concat!("3: .asciz \"", stringify!($name), "\""),
                    prefix = const crate::object::handle::MARK_PREFIX,
                    slot = sym slot::$name,
                    refuse = sym super::refuse,
                )
            }
        )*
    };
}

mod forward {
    symvirt_ffi::forwarded_exports!(forwarded);
}

mod guard {
    symvirt_ffi::guarded_exports!(guarded);
}

/// Finds the real functions; called once, when the real library is found.
pub fn fill(lookup: impl Fn(&str) -> *mut c_void) {
    for (name, slot) in forward::SLOTS.iter().chain(guard::SLOTS) {
        let entry = lookup(name);
        if !entry.is_null() {
            slot.store(entry, Ordering::Release);
        }
    }
}

/// Stands for a function that this version of UCX lacks, or that was called before UCX was there.
extern "C" fn absent() -> isize {
    Status::UNSUPPORTED.0 as isize
}

/// Refuses a function on one of our handles, saying so once.
unsafe extern "C" fn refuse(name: *const c_char) -> isize {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // SAFETY: a literal of the trampoline.
    let name = unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned();
    if lock(&SAID).insert(name.clone()) {
        crate::log::error!(
            "{name} was called on a context that did not ask for what it needs; it is refused. \
             A job that needs it runs unmoved without symvirt-guest exec."
        );
    }
    Status::UNSUPPORTED.0 as isize
}

//! `setenv` and its kin, which must not run while a helper of ours has UCX read the environment.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::process::environment;

macro_rules! exclusive {
    ($(fn $name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        /// # Safety
        /// As libc's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> c_int {
            static REAL: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());
            let mut real = REAL.load(Ordering::Relaxed);
            if real.is_null() {
                const NAME: &std::ffi::CStr =
                    match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("invariant: a function's name holds no null byte"),
                    };
                // SAFETY: a C string and a pseudo-handle.
                real = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr()) };
                REAL.store(real, Ordering::Relaxed);
            }
            let _held = environment::hold();
            // SAFETY: libc has this function, with this signature; the arguments are the
            // application's.
            unsafe {
                std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn($($ty),*) -> c_int>(
                    real,
                )($($arg),*)
            }
        }
    )*};
}

exclusive! {
    fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int);
    fn unsetenv(name: *const c_char);
    fn putenv(assignment: *mut c_char);
    fn clearenv();
}

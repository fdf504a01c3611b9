//! The exported C functions, one file per UCP object. They tell our handles from UCX's, pass the
//! gate, and call what thinks: [`crate::object`] and [`crate::process`].
//!
//! A handle that is not ours goes to the real library untranslated: a context that cannot be
//! moved, or libucp calling its own public functions.

pub mod active;
pub mod atomic;
pub mod config;
pub mod context;
pub mod datatype;
pub mod endpoint;
pub mod environment;
pub mod flush;
pub mod memory;
pub mod probe;
pub mod receive;
pub mod request;
pub mod rma;
pub mod send;
pub mod symvirt;
pub mod trampoline;
pub mod worker;

/// Calls a function of the real library that is too rarely used to stand in the table.
macro_rules! rarely {
    ($name:ident($($arg:expr => $ty:ty),* $(,)?) $(-> $ret:ty, or $default:expr)?) => {{
        let entry = $crate::real::lookup(stringify!($name));
        if entry.is_null() {
            $($default)?
        } else {
            #[allow(unused_unsafe, reason = "the macro also stands inside unsafe blocks")]
            // SAFETY: the function of this name, with the signature of the headers; the arguments
            // are the application's, with handles translated.
            let result = unsafe {
                let function = std::mem::transmute::<
                    *mut std::ffi::c_void,
                    unsafe extern "C" fn($($ty),*) $(-> $ret)?,
                >(entry);
                function($($arg),*)
            };
            result
        }
    }};
}
pub(crate) use rarely;

//! The structs of `include/symvirt.h`, for the library that implements it. The test `symvirt_h`
//! holds them against the header.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// What the functions return.
pub mod code {
    use std::ffi::c_int;

    /// Done.
    pub const OK: c_int = 0;
    /// An argument is null, or a struct's size is not known.
    pub const INVALID: c_int = -2;
    /// There is nothing to end or to remove.
    pub const NOT_HELD: c_int = -3;
    /// Called from a participant's callback.
    pub const IN_CALLBACK: c_int = -4;
}

/// Kinds of peers: the process itself, its guest, other guests.
pub const CLASSES: usize = 3;
/// Room for the names of the transports to one kind of peers.
pub const NAMES: usize = 128;

/// `struct symvirt_state`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Of the struct, by the caller.
    pub size: usize,
    /// Of the process.
    pub epoch: u64,
    /// Whether there is a gang.
    pub member: c_int,
    /// Whether a switch is under way.
    pub switching: c_int,
    /// Regions that hold the process.
    pub holds: c_uint,
    /// By kind of peers.
    pub transports: [[c_char; NAMES]; CLASSES],
}

/// `struct symvirt_switch`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Of the struct.
    pub size: usize,
    /// That the switch leads to.
    pub epoch: u64,
    /// Whether the job stands still from release to acquire.
    pub hold: c_int,
    /// As `UCX_TLS`, or null.
    pub tls: *const c_char,
    /// As `UCX_NET_DEVICES`, or null.
    pub net_devices: *const c_char,
}

/// `prepare`, `release` and `acquire`: null, or the reason why not.
pub type Callback = Option<unsafe extern "C" fn(*mut c_void, *const Switch) -> *const c_char>;
/// `abort`
pub type AbortCallback = Option<unsafe extern "C" fn(*mut c_void, *const Switch)>;

/// `struct symvirt_participant`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Participant {
    /// Of the struct.
    pub size: usize,
    /// For the operator.
    pub name: *const c_char,
    /// Handed to each callback.
    pub context: *mut c_void,
    /// A switch is proposed.
    pub prepare: Callback,
    /// Let go of the old device.
    pub release: Callback,
    /// The new transports can be used.
    pub acquire: Callback,
    /// The switch does not take place.
    pub abort: AbortCallback,
}

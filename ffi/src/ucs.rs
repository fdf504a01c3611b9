//! What UCP borrows from UCS (`ucs/type/*.h`).

use std::ffi::c_void;
use std::fmt;

/// `ucs_status_t`: 0 is success, 1 is in progress, negative is an error. One byte
/// (`UCS_S_PACKED`): of a register that it is returned in, the rest says nothing.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub i8);

impl Status {
    /// `UCS_OK`
    pub const OK: Status = Status(0);
    /// `UCS_INPROGRESS`
    pub const INPROGRESS: Status = Status(1);
    /// `UCS_ERR_NO_RESOURCE`
    pub const NO_RESOURCE: Status = Status(-2);
    /// `UCS_ERR_IO_ERROR`
    pub const IO_ERROR: Status = Status(-3);
    /// `UCS_ERR_NO_MEMORY`
    pub const NO_MEMORY: Status = Status(-4);
    /// `UCS_ERR_INVALID_PARAM`
    pub const INVALID_PARAM: Status = Status(-5);
    /// `UCS_ERR_UNREACHABLE`
    pub const UNREACHABLE: Status = Status(-6);
    /// `UCS_ERR_INVALID_ADDR`
    pub const INVALID_ADDR: Status = Status(-7);
    /// `UCS_ERR_MESSAGE_TRUNCATED`
    pub const MESSAGE_TRUNCATED: Status = Status(-9);
    /// `UCS_ERR_BUSY`
    pub const BUSY: Status = Status(-15);
    /// `UCS_ERR_CANCELED`
    pub const CANCELED: Status = Status(-16);
    /// `UCS_ERR_TIMED_OUT`
    pub const TIMED_OUT: Status = Status(-20);
    /// `UCS_ERR_UNSUPPORTED`
    pub const UNSUPPORTED: Status = Status(-22);
    /// `UCS_ERR_CONNECTION_RESET`
    pub const CONNECTION_RESET: Status = Status(-25);
    /// `UCS_ERR_ENDPOINT_TIMEOUT`
    pub const ENDPOINT_TIMEOUT: Status = Status(-80);
    /// `UCS_ERR_LAST`: no status is below.
    pub const LAST: Status = Status(-100);

    /// Whether it is an error.
    pub fn is_error(self) -> bool {
        self.0 < 0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UCS status {}", self.0)
    }
}

/// `ucs_status_ptr_t`: null for success, a small negative number cast to a pointer for an error,
/// otherwise a request.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusPtr(pub *mut c_void);

impl StatusPtr {
    /// Completed immediately.
    pub const OK: StatusPtr = StatusPtr(std::ptr::null_mut());

    /// An error, or [`Status::OK`].
    #[inline]
    pub fn from_status(status: Status) -> StatusPtr {
        StatusPtr(std::ptr::without_provenance_mut(status.0 as isize as usize))
    }

    /// The request, if it is one.
    #[inline]
    pub fn request(self) -> Option<*mut c_void> {
        let address = self.0.addr();
        let is_request = address.wrapping_sub(1) < (Status::LAST.0 as isize as usize) - 1;
        is_request.then_some(self.0)
    }

    /// The status: in progress if it is a request.
    #[inline]
    pub fn status(self) -> Status {
        match self.request() {
            Some(_) => Status::INPROGRESS,
            None => Status(self.0.addr() as isize as i8),
        }
    }
}

/// `ucs_thread_mode_t`
pub type ThreadMode = u32;
/// `UCS_THREAD_MODE_SINGLE`
pub const THREAD_MODE_SINGLE: ThreadMode = 0;
/// `UCS_THREAD_MODE_SERIALIZED`
pub const THREAD_MODE_SERIALIZED: ThreadMode = 1;
/// `UCS_THREAD_MODE_MULTI`
pub const THREAD_MODE_MULTI: ThreadMode = 2;

/// `ucs_memory_type_t`
pub type MemoryType = u32;

/// `ucs_cpu_set_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CpuSet {
    /// `ucs_bits`
    pub bits: [u64; 16],
}

/// `ucs_sock_addr_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SockAddr {
    /// `addr`
    pub addr: *const c_void,
    /// `addrlen`
    pub addrlen: u32,
}

//! A context: features, configuration, and the recipe to make another on other transports.

use std::ffi::{CStr, CString, c_char, c_uint, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use symvirt_ffi::flags::{context_attr, feature, param};
use symvirt_ffi::ucp::{ContextAttr, Params};
use symvirt_ffi::ucs::Status;
use symvirt_protocol::transport::Transports;

use super::handle::Mark;
use super::memory::Memory;
use super::pool::RequestSpec;
use super::worker::Worker;
use crate::real::real;

/// Features that a context may have and still be moved to other transports.
pub const MOVABLE_FEATURES: u64 = feature::TAG | feature::AM | ONE_SIDED;
/// Remote memory access and atomics: a peer does not count what arrives.
const ONE_SIDED: u64 = feature::RMA | feature::AMO32 | feature::AMO64;

/// Our `ucp_context_h`.
#[repr(C)]
pub struct Context {
    mark: Mark,
    real: AtomicPtr<c_void>,
    pub requests: RequestSpec,
    pub workers: Mutex<Vec<*const Worker>>,
    pub memories: Mutex<Vec<*const Memory>>,
    recipe: Recipe,
}

// SAFETY: raw pointers to objects that are changed only under the closed gate or their locks.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// How to make the real context again.
struct Recipe {
    api: (c_uint, c_uint),
    params: Params,
    /// As the application configured it.
    native: RealConfig,
    /// Overridden for each switch. Both are read on the application's thread at `ucp_init`,
    /// because reading the environment races with its `setenv`.
    explicit: RealConfig,
}

/// A real configuration of our own.
pub struct RealConfig(*mut c_void);

impl RealConfig {
    /// Reads the configuration as the application did.
    ///
    /// # Errors
    /// UCX's.
    pub fn read(
        prefix: Option<&CStr>,
        file: Option<&CStr>,
        changes: &[(CString, CString)],
    ) -> Result<RealConfig, Status> {
        let raw = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
        let mut config = ptr::null_mut();
        // SAFETY: C strings or null, and a place for the result.
        let status = unsafe { (real().config_read)(raw(prefix), raw(file), &raw mut config) };
        if status != Status::OK {
            return Err(status);
        }
        let config = RealConfig(config);
        for (name, value) in changes {
            config.modify(name, value)?;
        }
        Ok(config)
    }

    fn modify(&self, name: &CStr, value: &CStr) -> Result<(), Status> {
        // SAFETY: a live configuration and two C strings.
        match unsafe { (real().config_modify)(self.0, name.as_ptr(), value.as_ptr()) } {
            Status::OK => Ok(()),
            status => Err(status),
        }
    }
}

impl Drop for RealConfig {
    fn drop(&mut self) {
        // SAFETY: read by `config_read`, released once.
        unsafe { (real().config_release)(self.0) };
    }
}

impl Context {
    /// Makes a context, real side and all, on `transports`.
    ///
    /// # Errors
    /// UCX's.
    ///
    /// # Safety
    /// `params` is the application's, readable by its `field_mask`.
    pub unsafe fn create(
        api: (c_uint, c_uint),
        params: *const Params,
        configs: (RealConfig, RealConfig),
        transports: &Transports,
    ) -> Result<Box<Context>, Status> {
        // SAFETY: by the caller's promise.
        let (params, mut requests) = unsafe { (copy_params(params), request_spec(params)) };
        let recipe = Recipe {
            api,
            params,
            native: configs.0,
            explicit: configs.1,
        };
        let real_context = recipe.make(transports)?;
        requests.real = real_request_size(real_context).inspect_err(|_| {
            // SAFETY: made just now, and used by nobody.
            unsafe { (real().cleanup)(real_context) };
        })?;
        Ok(Box::new(Context {
            mark: Mark::Context,
            real: AtomicPtr::new(real_context),
            requests,
            workers: Mutex::new(Vec::new()),
            memories: Mutex::new(Vec::new()),
            recipe,
        }))
    }

    /// The real context in use.
    #[inline(always)]
    pub fn real(&self) -> *mut c_void {
        self.real.load(Ordering::Relaxed)
    }

    /// Changes the real side; under the closed gate. Returns the old one.
    pub fn swap_real(&self, new: *mut c_void) -> *mut c_void {
        self.real.swap(new, Ordering::Relaxed)
    }

    /// Whether operations may be under way that no peer counts.
    pub fn is_one_sided(&self) -> bool {
        self.recipe.params.features & ONE_SIDED != 0
    }

    /// Whether its workers take active messages.
    pub fn has_active_messages(&self) -> bool {
        self.recipe.params.features & feature::AM != 0
    }

    /// Whether its workers take tagged messages and nothing else.
    pub fn is_for_tags_only(&self) -> bool {
        self.recipe.params.features == feature::TAG
    }

    /// Makes another real context.
    ///
    /// # Errors
    /// UCX's.
    pub fn make_real(&self, transports: &Transports) -> Result<*mut c_void, Status> {
        self.recipe.make(transports)
    }
}

impl Recipe {
    fn make(&self, transports: &Transports) -> Result<*mut c_void, Status> {
        let config = match transports {
            Transports {
                tls: None,
                net_devices: None,
            } => &self.native,
            Transports { tls, net_devices } => {
                let value = |text: &Option<String>| {
                    CString::new(text.as_deref().unwrap_or("all"))
                        .map_err(|_| Status::INVALID_PARAM)
                };
                self.explicit.modify(c"TLS", &value(tls)?)?;
                self.explicit.modify(c"NET_DEVICES", &value(net_devices)?)?;
                &self.explicit
            }
        };
        let mut context = ptr::null_mut();
        // SAFETY: our own parameters and configuration, and a place for the result.
        let status = unsafe {
            (real().init_version)(
                self.api.0,
                self.api.1,
                &raw const self.params,
                config.0,
                &raw mut context,
            )
        };
        if status == Status::OK {
            Ok(context)
        } else {
            Err(status)
        }
    }
}

/// The fields that the application announced, without the request hooks: requests are ours.
///
/// # Safety
/// `params` is readable by its `field_mask`.
unsafe fn copy_params(params: *const Params) -> Params {
    const KEPT: u64 = param::FEATURES
        | param::TAG_SENDER_MASK
        | param::MT_WORKERS_SHARED
        | param::ESTIMATED_NUM_EPS
        | param::ESTIMATED_NUM_PPN;
    let empty = Params {
        field_mask: 0,
        features: 0,
        request_size: 0,
        request_init: None,
        request_cleanup: None,
        tag_sender_mask: 0,
        mt_workers_shared: 0,
        estimated_num_eps: 0,
        estimated_num_ppn: 0,
        name: ptr::null::<c_char>(),
    };
    // SAFETY: `field_mask` is always there; each field only if announced, as structs grow.
    unsafe {
        let mask = (*params).field_mask & KEPT;
        let mut copy = Params {
            field_mask: mask,
            ..empty
        };
        if mask & param::FEATURES != 0 {
            // Hellos are tagged messages.
            copy.features = (*params).features | feature::TAG;
        }
        if mask & param::TAG_SENDER_MASK != 0 {
            copy.tag_sender_mask = (*params).tag_sender_mask;
        }
        if mask & param::MT_WORKERS_SHARED != 0 {
            copy.mt_workers_shared = (*params).mt_workers_shared;
        }
        if mask & param::ESTIMATED_NUM_EPS != 0 {
            copy.estimated_num_eps = (*params).estimated_num_eps;
        }
        if mask & param::ESTIMATED_NUM_PPN != 0 {
            copy.estimated_num_ppn = (*params).estimated_num_ppn;
        }
        copy
    }
}

/// Bytes of a request of the real library without an application's area: the same in all contexts.
fn real_request_size(real_context: *mut c_void) -> Result<usize, Status> {
    let mut attr = MaybeUninit::<ContextAttr>::zeroed();
    // SAFETY: a live context and our attributes, of which zero bytes are valid values.
    let (status, size) = unsafe {
        let attr = attr.assume_init_mut();
        attr.field_mask = context_attr::REQUEST_SIZE;
        (
            (real().context_query)(real_context, attr),
            attr.request_size,
        )
    };
    match status {
        Status::OK => Ok(size),
        status => Err(status),
    }
}

/// What the application asked for; the real library's part is not known yet.
///
/// # Safety
/// `params` is readable by its `field_mask`.
unsafe fn request_spec(params: *const Params) -> RequestSpec {
    // SAFETY: each field only if announced.
    unsafe {
        let has = |field| (*params).field_mask & field != 0;
        RequestSpec {
            real: 0,
            size: if has(param::REQUEST_SIZE) {
                (*params).request_size
            } else {
                0
            },
            init: if has(param::REQUEST_INIT) {
                (*params).request_init
            } else {
                None
            },
            cleanup: if has(param::REQUEST_CLEANUP) {
                (*params).request_cleanup
            } else {
                None
            },
        }
    }
}

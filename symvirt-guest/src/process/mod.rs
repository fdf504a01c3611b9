//! What there is one of per process.
//!
//! | module | holds |
//! |---|---|
//! | [`configuration`] | how the application's UCX configurations were made |
//! | [`contexts`], [`workers`], [`endpoints`], [`memories`] | making and destroying our objects |
//! | [`environment`] | the process's environment, between the application and UCX |
//! | [`gang`] | identity, epoch, transports, the peers' addresses, what was sent |
//! | [`holds`], [`participants`], [`state`] | what `symvirt.h` offers |
//! | [`round`] | the switch under way, as the application's threads must respect it |

pub mod configuration;
pub mod contexts;
pub mod endpoints;
pub mod environment;
pub mod gang;
pub mod holds;
pub mod memories;
pub mod participants;
pub mod round;
pub mod state;
pub mod workers;

use symvirt_ffi::flags::param;
use symvirt_ffi::ucp::Params;

use crate::object::context::MOVABLE_FEATURES;

/// Whether a context of these parameters can be moved to other transports. One that cannot is
/// left to the real library; if there is a gang, its process joins it to veto switches.
///
/// # Safety
/// `params` is readable by its `field_mask`.
pub unsafe fn is_movable(params: *const Params) -> bool {
    // SAFETY: by the caller's promise.
    let features = unsafe {
        if (*params).field_mask & param::FEATURES == 0 {
            0
        } else {
            (*params).features
        }
    };
    let beyond = features & !MOVABLE_FEATURES;
    let is_member = gang::join();
    if beyond != 0 {
        gang::block(format!(
            "a UCX context asks for features {beyond:#x} (ucp_init_version; 0x10 wake-up, \
             0x20 streams)"
        ));
    }
    is_member && beyond == 0
}

/// In the child of a fork: no gang, no helpers. See `life`.
pub fn forget_helpers_after_fork() {
    gang::forget_after_fork();
    environment::forget_after_fork();
}

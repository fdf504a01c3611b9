//! Tagged receives, in all variants.

use std::ffi::c_void;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{Datatype, RequestParam, Tag, TagRecvCallback, TagRecvNbxCallback};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::rarely;
use crate::gate;
use crate::object::handle;
use crate::object::request::Callback;
use crate::real::real;
use crate::transfer::options::Options;
use crate::transfer::receive::receive;

/// The callback of an `nbx` receive.
pub fn receive_callback(callback: *const c_void) -> Callback {
    // SAFETY: UCP's contract: the callback of a tagged receive has this type, or is null.
    Callback::RecvNbx(unsafe { std::mem::transmute::<*const c_void, TagRecvNbxCallback>(callback) })
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_nbx(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    tag: Tag,
    mask: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return (real().tag_recv_nbx)(worker, buffer, count, tag, mask, param);
        };
        let options = Options::read(param, receive_callback);
        let _passage = gate::enter();
        receive(ours, buffer, count, tag, mask, &options, true)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_nb(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    mask: Tag,
    callback: TagRecvCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return rarely!(ucp_tag_recv_nb(
                    worker => *mut c_void, buffer => *mut c_void, count => usize,
                    datatype => Datatype, tag => Tag, mask => Tag, callback => TagRecvCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        };
        let options = Options::plain(datatype, Callback::Recv(callback));
        let _passage = gate::enter();
        receive(ours, buffer, count, tag, mask, &options, false)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_recv_nbr(
    worker: *mut c_void,
    buffer: *mut c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    mask: Tag,
    request: *mut c_void,
) -> Status {
    // SAFETY: the application's arguments; `request` has the memory it was told to provide.
    unsafe {
        let Some(ours) = handle::worker(worker) else {
            return rarely!(ucp_tag_recv_nbr(
                    worker => *mut c_void, buffer => *mut c_void, count => usize,
                    datatype => Datatype, tag => Tag, mask => Tag, request => *mut c_void,
                ) -> Status, or Status::UNSUPPORTED);
        };
        let mut options = Options::plain(datatype, Callback::None);
        options.mask |= op::REQUEST | op::NO_IMM_CMPL;
        options.user_request = request;
        let _passage = gate::enter();
        // The status of a receive that was posted is in the request only, as with UCX.
        match receive(ours, buffer, count, tag, mask, &options, false).status() {
            status if status.is_error() => status,
            _ => Status::OK,
        }
    }
}

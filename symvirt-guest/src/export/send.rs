//! Tagged sends, in all variants.

use std::ffi::c_void;

use symvirt_ffi::flags::op;
use symvirt_ffi::ucp::{Datatype, RequestParam, SendCallback, Tag};
use symvirt_ffi::ucs::{Status, StatusPtr};

use super::flush::send_callback;
use super::rarely;
use crate::gate;
use crate::object::handle;
use crate::object::request::Callback;
use crate::real::real;
use crate::transfer::options::Options;
use crate::transfer::send::{send, send_sync};

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_nbx(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    tag: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return (real().tag_send_nbx)(endpoint, buffer, count, tag, param);
        };
        let options = Options::read(param, send_callback);
        let _passage = gate::enter();
        send(ours, buffer, count, tag, &options)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_nb(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return rarely!(ucp_tag_send_nb(
                    endpoint => *mut c_void, buffer => *const c_void, count => usize,
                    datatype => Datatype, tag => Tag, callback => SendCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        };
        let options = Options::plain(datatype, Callback::Send(callback));
        let _passage = gate::enter();
        send(ours, buffer, count, tag, &options)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_nbr(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    request: *mut c_void,
) -> Status {
    // SAFETY: the application's arguments; `request` has the memory it was told to provide.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return rarely!(ucp_tag_send_nbr(
                    endpoint => *mut c_void, buffer => *const c_void, count => usize,
                    datatype => Datatype, tag => Tag, request => *mut c_void,
                ) -> Status, or Status::UNSUPPORTED);
        };
        let mut options = Options::plain(datatype, Callback::None);
        options.mask |= op::REQUEST;
        options.user_request = request;
        let _passage = gate::enter();
        send(ours, buffer, count, tag, &options).status()
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_sync_nbx(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    tag: Tag,
    param: *const RequestParam,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return (real().tag_send_sync_nbx)(endpoint, buffer, count, tag, param);
        };
        let options = Options::read(param, send_callback);
        let _passage = gate::enter();
        send_sync(ours, buffer, count, tag, &options)
    }
}

/// # Safety
/// As UCX's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucp_tag_send_sync_nb(
    endpoint: *mut c_void,
    buffer: *const c_void,
    count: usize,
    datatype: Datatype,
    tag: Tag,
    callback: SendCallback,
) -> StatusPtr {
    // SAFETY: the application's arguments.
    unsafe {
        let Some(ours) = handle::endpoint(endpoint) else {
            return rarely!(ucp_tag_send_sync_nb(
                    endpoint => *mut c_void, buffer => *const c_void, count => usize,
                    datatype => Datatype, tag => Tag, callback => SendCallback,
                ) -> StatusPtr, or StatusPtr::from_status(Status::UNSUPPORTED));
        };
        let options = Options::plain(datatype, Callback::Send(callback));
        let _passage = gate::enter();
        send_sync(ours, buffer, count, tag, &options)
    }
}

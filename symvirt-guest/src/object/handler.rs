//! A handler of active messages, in either of UCP's forms.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::am_recv_attr;
use symvirt_ffi::ucp::{AmCallback, AmRecvCallback, AmRecvParam};
use symvirt_ffi::ucs::Status;

use super::endpoint::Endpoint;

/// `UCP_CB_PARAM_FLAG_DATA`
const CB_PARAM_FLAG_DATA: u32 = 1;

/// The callback in either form.
#[derive(Clone, Copy)]
pub enum Callback {
    /// Of `ucp_worker_set_am_handler`.
    Old(AmCallback),
    /// Of `ucp_worker_set_am_recv_handler`.
    New(AmRecvCallback),
}

/// A handler of the application.
pub struct Handler {
    pub callback: Callback,
    pub arg: *mut c_void,
    /// It must be able to keep whatever data it gets.
    pub persistent: bool,
}

/// A message as a handler gets it.
pub struct Message<'a> {
    pub header: &'a [u8],
    pub data: *mut c_void,
    pub length: usize,
    /// [`am_recv_attr::DATA`], [`am_recv_attr::RNDV`] or neither.
    pub attr: u64,
    pub reply: Option<&'a Endpoint>,
}

impl Handler {
    /// Calls the application. A message that this form of handler cannot take is dropped.
    ///
    /// # Safety
    /// On an application thread, inside the gate; the message is whole.
    pub unsafe fn call(&self, message: &Message<'_>) -> Status {
        let reply: *mut c_void = message.reply.map_or(ptr::null_mut(), |endpoint| {
            ptr::from_ref(endpoint).cast_mut().cast()
        });
        match self.callback {
            Callback::New(Some(callback)) => {
                let reply_attr = if reply.is_null() {
                    0
                } else {
                    am_recv_attr::REPLY_EP
                };
                let param = AmRecvParam {
                    recv_attr: message.attr | reply_attr,
                    reply_ep: reply,
                };
                let (header, length) = match message.header {
                    [] => (ptr::null(), 0),
                    bytes => (bytes.as_ptr(), bytes.len()),
                };
                let (data, bytes) = (message.data, message.length);
                // SAFETY: the application's callback and argument; by the caller's promise.
                unsafe {
                    callback(
                        self.arg,
                        header.cast(),
                        length,
                        data,
                        bytes,
                        &raw const param,
                    )
                }
            }
            Callback::Old(Some(callback))
                if message.header.is_empty() && message.attr & am_recv_attr::RNDV == 0 =>
            {
                let flags = match message.attr & am_recv_attr::DATA {
                    0 => 0,
                    _ => CB_PARAM_FLAG_DATA,
                };
                // SAFETY: as above.
                unsafe { callback(self.arg, message.data, message.length, reply, flags) }
            }
            Callback::Old(_) | Callback::New(None) => Status::INVALID_PARAM,
        }
    }
}

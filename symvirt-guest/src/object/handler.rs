//! A handler of active messages, in either of UCP's forms.

use std::ffi::c_void;
use std::ptr;

use symvirt_ffi::flags::{am_cb_param, am_recv_attr};
use symvirt_ffi::ucp::{AmCallback, AmRecvCallback, AmRecvParam};
use symvirt_ffi::ucs::Status;

use super::endpoint::Endpoint;

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
                    _ => am_cb_param::DATA,
                };
                // SAFETY: as above.
                unsafe { callback(self.arg, message.data, message.length, reply, flags) }
            }
            Callback::Old(_) | Callback::New(None) => Status::INVALID_PARAM,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_uint;

    use symvirt_ffi::ucp::Ep;

    use super::*;

    /// What a handler was called with.
    #[derive(Default, PartialEq, Eq, Debug)]
    struct Seen {
        calls: u32,
        header: Vec<u8>,
        length: usize,
        flags: u64,
    }

    unsafe extern "C" fn old(
        arg: *mut c_void,
        _: *mut c_void,
        length: usize,
        reply_ep: Ep,
        flags: c_uint,
    ) -> Status {
        assert!(reply_ep.is_null());
        // SAFETY: each test passes its own record.
        let seen = unsafe { &mut *arg.cast::<Seen>() };
        seen.calls += 1;
        seen.length = length;
        seen.flags = flags.into();
        Status::OK
    }

    unsafe extern "C" fn new(
        arg: *mut c_void,
        header: *const c_void,
        header_length: usize,
        _: *mut c_void,
        length: usize,
        param: *const AmRecvParam,
    ) -> Status {
        // SAFETY: as above; the caller passes as many bytes as it says, and valid parameters.
        unsafe {
            let seen = &mut *arg.cast::<Seen>();
            seen.calls += 1;
            if header_length > 0 {
                seen.header = std::slice::from_raw_parts(header.cast(), header_length).to_vec();
            }
            seen.length = length;
            seen.flags = (*param).recv_attr;
        }
        Status::INPROGRESS
    }

    fn call(callback: Callback, header: &[u8], attr: u64) -> (Status, Seen) {
        let mut seen = Seen::default();
        let handler = Handler {
            callback,
            arg: (&raw mut seen).cast(),
            persistent: false,
        };
        let message = Message {
            header,
            data: ptr::null_mut(),
            length: 5,
            attr,
            reply: None,
        };
        // SAFETY: neither callback looks at the data.
        let status = unsafe { handler.call(&message) };
        (status, seen)
    }

    #[test]
    fn a_handler_of_the_old_form_gets_neither_header_nor_rendezvous() {
        let callback = Callback::Old(Some(old));
        let refused = (Status::INVALID_PARAM, Seen::default());
        assert_eq!(call(callback, b"header", 0), refused);
        assert_eq!(call(callback, b"", am_recv_attr::RNDV), refused);
        let (status, seen) = call(callback, b"", am_recv_attr::DATA);
        assert_eq!((status, seen.calls, seen.length), (Status::OK, 1, 5));
        assert_eq!(seen.flags, u64::from(am_cb_param::DATA));
    }

    #[test]
    fn a_handler_of_the_new_form_gets_header_and_attributes() {
        let (status, seen) = call(Callback::New(Some(new)), b"header", am_recv_attr::RNDV);
        let expected = Seen {
            calls: 1,
            header: b"header".to_vec(),
            length: 5,
            flags: am_recv_attr::RNDV,
        };
        assert_eq!((status, seen), (Status::INPROGRESS, expected));
    }
}

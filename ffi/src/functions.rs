//! Types of the UCP functions that SymVirt calls, as one table of pointers.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::ucp::*;
use crate::ucs::{Status, StatusPtr};

macro_rules! functions {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        /// Entries of the real library; all of them exist in every supported version.
        #[derive(Clone, Copy)]
        pub struct Functions {
            $(
                #[doc = concat!("`ucp_", stringify!($name), "`")]
                pub $name: unsafe extern "C" fn($($ty),*) $(-> $ret)?,
            )*
        }

        impl Functions {
            /// Finds every entry by `lookup`, which returns null for one that is not there.
            ///
            /// # Errors
            /// The name of the first entry that is missing.
            ///
            /// # Safety
            /// `lookup` must return the address of the UCP function of the name it is given.
            pub unsafe fn resolve(
                lookup: impl Fn(&str) -> *mut c_void,
            ) -> Result<Functions, &'static str> {
                Ok(Functions {
                    $($name: {
                        const NAME: &str = concat!("ucp_", stringify!($name));
                        let entry = lookup(NAME);
                        if entry.is_null() {
                            return Err(NAME);
                        }
                        // SAFETY: the caller's `lookup` returns the function of this name, whose
                        // C signature is the one declared here (test `headers`).
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($ty),*) $(-> $ret)?,
                            >(entry)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    fn get_version(major: *mut c_uint, minor: *mut c_uint, release: *mut c_uint);
    fn config_read(prefix: *const c_char, file: *const c_char, config: *mut Config) -> Status;
    fn config_release(config: Config);
    fn config_modify(config: Config, name: *const c_char, value: *const c_char) -> Status;
    fn init_version(
        major: c_uint, minor: c_uint, params: *const Params, config: Config, context: *mut Context,
    ) -> Status;
    fn cleanup(context: Context);
    fn context_query(context: Context, attr: *mut ContextAttr) -> Status;
    fn worker_create(context: Context, params: *const WorkerParams, worker: *mut Worker) -> Status;
    fn worker_destroy(worker: Worker);
    fn worker_query(worker: Worker, attr: *mut WorkerAttr) -> Status;
    fn worker_get_address(worker: Worker, address: *mut Address, length: *mut usize) -> Status;
    fn worker_release_address(worker: Worker, address: Address);
    fn worker_address_query(address: Address, attr: *mut WorkerAddressAttr) -> Status;
    fn worker_progress(worker: Worker) -> c_uint;
    fn worker_flush_nbx(worker: Worker, param: *const RequestParam) -> StatusPtr;
    fn ep_create(worker: Worker, params: *const EpParams, ep: *mut Ep) -> Status;
    fn ep_close_nbx(ep: Ep, param: *const RequestParam) -> StatusPtr;
    fn ep_flush_nbx(ep: Ep, param: *const RequestParam) -> StatusPtr;
    fn mem_map(context: Context, params: *const MemMapParams, memh: *mut Memh) -> Status;
    fn mem_unmap(context: Context, memh: Memh) -> Status;
    fn rkey_pack(
        context: Context, memh: Memh, buffer: *mut *mut c_void, size: *mut usize,
    ) -> Status;
    fn rkey_buffer_release(buffer: *mut c_void);
    fn ep_rkey_unpack(ep: Ep, buffer: *const c_void, rkey: *mut Rkey) -> Status;
    fn rkey_destroy(rkey: Rkey);
    fn put_nbx(
        ep: Ep, buffer: *const c_void, count: usize, remote: u64, rkey: Rkey,
        param: *const RequestParam,
    ) -> StatusPtr;
    fn get_nbx(
        ep: Ep, buffer: *mut c_void, count: usize, remote: u64, rkey: Rkey,
        param: *const RequestParam,
    ) -> StatusPtr;
    fn put_nbi(
        ep: Ep, buffer: *const c_void, length: usize, remote: u64, rkey: Rkey,
    ) -> Status;
    fn get_nbi(ep: Ep, buffer: *mut c_void, length: usize, remote: u64, rkey: Rkey) -> Status;
    fn atomic_post(
        ep: Ep, op: AtomicPostOp, value: u64, size: usize, remote: u64, rkey: Rkey,
    ) -> Status;
    fn atomic_op_nbx(
        ep: Ep, op: AtomicOp, buffer: *const c_void, count: usize, remote: u64, rkey: Rkey,
        param: *const RequestParam,
    ) -> StatusPtr;
    fn tag_send_nbx(
        ep: Ep, buffer: *const c_void, count: usize, tag: Tag, param: *const RequestParam,
    ) -> StatusPtr;
    fn tag_send_sync_nbx(
        ep: Ep, buffer: *const c_void, count: usize, tag: Tag, param: *const RequestParam,
    ) -> StatusPtr;
    fn tag_recv_nbx(
        worker: Worker, buffer: *mut c_void, count: usize, tag: Tag, mask: Tag,
        param: *const RequestParam,
    ) -> StatusPtr;
    fn tag_probe_nb(
        worker: Worker, tag: Tag, mask: Tag, remove: c_int, info: *mut TagRecvInfo,
    ) -> Message;
    fn tag_msg_recv_nbx(
        worker: Worker, buffer: *mut c_void, count: usize, message: Message,
        param: *const RequestParam,
    ) -> StatusPtr;
    fn am_send_nbx(
        ep: Ep, id: c_uint, header: *const c_void, header_length: usize, buffer: *const c_void,
        count: usize, param: *const RequestParam,
    ) -> StatusPtr;
    fn worker_set_am_recv_handler(worker: Worker, param: *const AmHandlerParam) -> Status;
    fn am_recv_data_nbx(
        worker: Worker, data: *mut c_void, buffer: *mut c_void, count: usize,
        param: *const RequestParam,
    ) -> StatusPtr;
    fn am_data_release(worker: Worker, data: *mut c_void);
    fn dt_create_generic(
        ops: *const GenericDtOps, context: *mut c_void, datatype: *mut Datatype,
    ) -> Status;
    fn dt_destroy(datatype: Datatype);
    fn request_cancel(worker: Worker, request: *mut c_void);
    fn request_free(request: *mut c_void);
    fn request_check_status(request: *mut c_void) -> Status;
    fn request_query(request: *mut c_void, attr: *mut RequestAttr) -> Status;
}

//! Handles, structs and callbacks of `ucp/api/ucp.h`. Each item names its C original.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::ucs::{CpuSet, MemoryType, SockAddr, Status, ThreadMode};

macro_rules! handles {
    ($($name:ident = $c:literal),* $(,)?) => {$(
        #[doc = concat!("`", $c, "`")]
        pub type $name = *mut c_void;
    )*};
}

handles! {
    Context = "ucp_context_h",
    Worker = "ucp_worker_h",
    Ep = "ucp_ep_h",
    Config = "ucp_config_t *",
    Address = "ucp_address_t *",
    Message = "ucp_tag_message_h",
    Memh = "ucp_mem_h",
    Rkey = "ucp_rkey_h",
    ConnRequest = "ucp_conn_request_h",
}

/// `ucp_tag_t`
pub type Tag = u64;
/// `ucp_datatype_t`
pub type Datatype = u64;

/// `ucp_atomic_op_t`
pub type AtomicOp = c_uint;
/// `ucp_atomic_post_op_t`
pub type AtomicPostOp = c_uint;
/// `ucp_atomic_fetch_op_t`
pub type AtomicFetchOp = c_uint;

/// `UCP_ENTITY_NAME_MAX`
pub const ENTITY_NAME_MAX: usize = 32;

/// `ucp_request_init_callback_t`, and `ucp_request_cleanup_callback_t`
pub type RequestInit = Option<unsafe extern "C" fn(request: *mut c_void)>;
/// `ucp_send_callback_t`
pub type SendCallback = Option<unsafe extern "C" fn(request: *mut c_void, status: Status)>;
/// `ucp_send_nbx_callback_t`
pub type SendNbxCallback =
    Option<unsafe extern "C" fn(request: *mut c_void, status: Status, user_data: *mut c_void)>;
/// `ucp_tag_recv_callback_t`
pub type TagRecvCallback =
    Option<unsafe extern "C" fn(request: *mut c_void, status: Status, info: *mut TagRecvInfo)>;
/// `ucp_tag_recv_nbx_callback_t`
pub type TagRecvNbxCallback = Option<
    unsafe extern "C" fn(
        request: *mut c_void,
        status: Status,
        info: *const TagRecvInfo,
        user_data: *mut c_void,
    ),
>;
/// `ucp_am_callback_t`
pub type AmCallback = Option<
    unsafe extern "C" fn(
        arg: *mut c_void,
        data: *mut c_void,
        length: usize,
        reply_ep: Ep,
        flags: c_uint,
    ) -> Status,
>;
/// `ucp_am_recv_callback_t`
pub type AmRecvCallback = Option<
    unsafe extern "C" fn(
        arg: *mut c_void,
        header: *const c_void,
        header_length: usize,
        data: *mut c_void,
        length: usize,
        param: *const AmRecvParam,
    ) -> Status,
>;
/// `ucp_err_handler_cb_t`
pub type ErrHandlerCallback =
    Option<unsafe extern "C" fn(arg: *mut c_void, ep: Ep, status: Status)>;

/// `ucp_tag_recv_info_t`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagRecvInfo {
    /// `sender_tag`
    pub sender_tag: Tag,
    /// `length`, in bytes
    pub length: usize,
}

/// `ucp_err_handler_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ErrHandler {
    /// `cb`
    pub cb: ErrHandlerCallback,
    /// `arg`
    pub arg: *mut c_void,
}

/// `ucp_params_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Params {
    /// `field_mask`
    pub field_mask: u64,
    /// `features`
    pub features: u64,
    /// `request_size`
    pub request_size: usize,
    /// `request_init`
    pub request_init: RequestInit,
    /// `request_cleanup`
    pub request_cleanup: RequestInit,
    /// `tag_sender_mask`
    pub tag_sender_mask: u64,
    /// `mt_workers_shared`
    pub mt_workers_shared: c_int,
    /// `estimated_num_eps`
    pub estimated_num_eps: usize,
    /// `estimated_num_ppn`
    pub estimated_num_ppn: usize,
    /// `name`
    pub name: *const c_char,
}

/// `ucp_context_attr_t`
#[repr(C)]
pub struct ContextAttr {
    /// `field_mask`
    pub field_mask: u64,
    /// `request_size`
    pub request_size: usize,
    /// `thread_mode`
    pub thread_mode: ThreadMode,
    /// `memory_types`
    pub memory_types: u64,
    /// `name`
    pub name: [c_char; ENTITY_NAME_MAX],
}

/// `ucp_worker_params_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WorkerParams {
    /// `field_mask`
    pub field_mask: u64,
    /// `thread_mode`
    pub thread_mode: ThreadMode,
    /// `cpu_mask`
    pub cpu_mask: CpuSet,
    /// `events`
    pub events: c_uint,
    /// `user_data`
    pub user_data: *mut c_void,
    /// `event_fd`
    pub event_fd: c_int,
    /// `flags`
    pub flags: u64,
    /// `name`
    pub name: *const c_char,
    /// `am_alignment`
    pub am_alignment: usize,
    /// `client_id`
    pub client_id: u64,
}

/// `ucp_worker_attr_t`
#[repr(C)]
pub struct WorkerAttr {
    /// `field_mask`
    pub field_mask: u64,
    /// `thread_mode`
    pub thread_mode: ThreadMode,
    /// `address_flags`
    pub address_flags: u32,
    /// `address`
    pub address: Address,
    /// `address_length`
    pub address_length: usize,
    /// `max_am_header`
    pub max_am_header: usize,
    /// `name`
    pub name: [c_char; ENTITY_NAME_MAX],
    /// `max_debug_string`
    pub max_debug_string: usize,
}

/// `ucp_worker_address_attr_t`
#[repr(C)]
pub struct WorkerAddressAttr {
    /// `field_mask`
    pub field_mask: u64,
    /// `worker_uid`
    pub worker_uid: u64,
}

/// `ucp_ep_params_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct EpParams {
    /// `field_mask`
    pub field_mask: u64,
    /// `address`
    pub address: Address,
    /// `err_mode`
    pub err_mode: u32,
    /// `err_handler`
    pub err_handler: ErrHandler,
    /// `user_data`
    pub user_data: *mut c_void,
    /// `flags`
    pub flags: c_uint,
    /// `sockaddr`
    pub sockaddr: SockAddr,
    /// `conn_request`
    pub conn_request: ConnRequest,
    /// `name`
    pub name: *const c_char,
    /// `local_sockaddr`
    pub local_sockaddr: SockAddr,
}

/// `ucp_mem_map_params_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct MemMapParams {
    /// `field_mask`
    pub field_mask: u64,
    /// `address`
    pub address: *mut c_void,
    /// `length`, in bytes
    pub length: usize,
    /// `flags`
    pub flags: c_uint,
    /// `prot`
    pub prot: c_uint,
    /// `memory_type`
    pub memory_type: MemoryType,
}

/// `ucp_am_handler_param_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AmHandlerParam {
    /// `field_mask`
    pub field_mask: u64,
    /// `id`
    pub id: c_uint,
    /// `flags`
    pub flags: u32,
    /// `cb`
    pub cb: AmRecvCallback,
    /// `arg`
    pub arg: *mut c_void,
}

/// `ucp_am_recv_param_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AmRecvParam {
    /// `recv_attr`
    pub recv_attr: u64,
    /// `reply_ep`
    pub reply_ep: Ep,
}

/// `ucp_request_param_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RequestParam {
    /// `op_attr_mask`
    pub op_attr_mask: u32,
    /// `flags`
    pub flags: u32,
    /// `request`
    pub request: *mut c_void,
    /// `cb`, a union of the callback types
    pub cb: *const c_void,
    /// `datatype`
    pub datatype: Datatype,
    /// `user_data`
    pub user_data: *mut c_void,
    /// `reply_buffer`
    pub reply_buffer: *mut c_void,
    /// `memory_type`
    pub memory_type: MemoryType,
    /// `recv_info.tag_info`
    pub recv_info: *mut TagRecvInfo,
    /// `memh`
    pub memh: Memh,
}

/// `ucp_request_attr_t`
#[repr(C)]
pub struct RequestAttr {
    /// `field_mask`
    pub field_mask: u64,
    /// `debug_string`
    pub debug_string: *mut c_char,
    /// `debug_string_size`
    pub debug_string_size: usize,
    /// `status`
    pub status: Status,
    /// `mem_type`
    pub mem_type: MemoryType,
}

/// `ucp_dt_iov_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DtIov {
    /// `buffer`
    pub buffer: *mut c_void,
    /// `length`, in bytes
    pub length: usize,
}

/// `ucp_generic_dt_ops_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GenericDtOps {
    /// `start_pack`
    pub start_pack: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            buffer: *const c_void,
            count: usize,
        ) -> *mut c_void,
    >,
    /// `start_unpack`
    pub start_unpack: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            buffer: *mut c_void,
            count: usize,
        ) -> *mut c_void,
    >,
    /// `packed_size`
    pub packed_size: Option<unsafe extern "C" fn(state: *mut c_void) -> usize>,
    /// `pack`
    pub pack: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            offset: usize,
            dest: *mut c_void,
            max_length: usize,
        ) -> usize,
    >,
    /// `unpack`
    pub unpack: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            offset: usize,
            src: *const c_void,
            length: usize,
        ) -> Status,
    >,
    /// `finish`
    pub finish: Option<unsafe extern "C" fn(state: *mut c_void)>,
}

/// `ucp_datatype_attr_t` is passed on unread.
pub type DatatypeAttr = c_void;

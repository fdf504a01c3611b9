//! Bits of the masks that SymVirt reads or sets. Each constant bears its C name without `UCP_`.

/// `enum ucp_params_field`
pub mod param {
    /// `UCP_PARAM_FIELD_FEATURES`
    pub const FEATURES: u64 = 1 << 0;
    /// `UCP_PARAM_FIELD_REQUEST_SIZE`
    pub const REQUEST_SIZE: u64 = 1 << 1;
    /// `UCP_PARAM_FIELD_REQUEST_INIT`
    pub const REQUEST_INIT: u64 = 1 << 2;
    /// `UCP_PARAM_FIELD_REQUEST_CLEANUP`
    pub const REQUEST_CLEANUP: u64 = 1 << 3;
    /// `UCP_PARAM_FIELD_TAG_SENDER_MASK`
    pub const TAG_SENDER_MASK: u64 = 1 << 4;
    /// `UCP_PARAM_FIELD_MT_WORKERS_SHARED`
    pub const MT_WORKERS_SHARED: u64 = 1 << 5;
    /// `UCP_PARAM_FIELD_ESTIMATED_NUM_EPS`
    pub const ESTIMATED_NUM_EPS: u64 = 1 << 6;
    /// `UCP_PARAM_FIELD_ESTIMATED_NUM_PPN`
    pub const ESTIMATED_NUM_PPN: u64 = 1 << 7;
}

/// `enum ucp_feature`
pub mod feature {
    /// `UCP_FEATURE_TAG`
    pub const TAG: u64 = 1 << 0;
    /// `UCP_FEATURE_RMA`
    pub const RMA: u64 = 1 << 1;
    /// `UCP_FEATURE_AMO32`
    pub const AMO32: u64 = 1 << 2;
    /// `UCP_FEATURE_AMO64`
    pub const AMO64: u64 = 1 << 3;
    /// `UCP_FEATURE_WAKEUP`
    pub const WAKEUP: u64 = 1 << 4;
    /// `UCP_FEATURE_STREAM`
    pub const STREAM: u64 = 1 << 5;
    /// `UCP_FEATURE_AM`
    pub const AM: u64 = 1 << 6;
}

/// `enum ucp_context_attr_field`
pub mod context_attr {
    /// `UCP_ATTR_FIELD_REQUEST_SIZE`
    pub const REQUEST_SIZE: u64 = 1 << 0;
}

/// `enum ucp_worker_params_field`
pub mod worker_param {
    /// `UCP_WORKER_PARAM_FIELD_THREAD_MODE`
    pub const THREAD_MODE: u64 = 1 << 0;
    /// `UCP_WORKER_PARAM_FIELD_CPU_MASK`
    pub const CPU_MASK: u64 = 1 << 1;
    /// `UCP_WORKER_PARAM_FIELD_EVENTS`
    pub const EVENTS: u64 = 1 << 2;
    /// `UCP_WORKER_PARAM_FIELD_USER_DATA`
    pub const USER_DATA: u64 = 1 << 3;
    /// `UCP_WORKER_PARAM_FIELD_EVENT_FD`
    pub const EVENT_FD: u64 = 1 << 4;
    /// `UCP_WORKER_PARAM_FIELD_FLAGS`
    pub const FLAGS: u64 = 1 << 5;
    /// `UCP_WORKER_PARAM_FIELD_AM_ALIGNMENT`
    pub const AM_ALIGNMENT: u64 = 1 << 7;
}

/// `enum ucp_worker_attr_field`
pub mod worker_attr {
    /// `UCP_WORKER_ATTR_FIELD_THREAD_MODE`
    pub const THREAD_MODE: u64 = 1 << 0;
    /// `UCP_WORKER_ATTR_FIELD_ADDRESS`
    pub const ADDRESS: u64 = 1 << 1;
    /// `UCP_WORKER_ATTR_FIELD_ADDRESS_FLAGS`
    pub const ADDRESS_FLAGS: u64 = 1 << 2;
    /// `UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER`
    pub const MAX_AM_HEADER: u64 = 1 << 3;
}

/// `enum ucp_ep_params_field`
pub mod ep_param {
    /// `UCP_EP_PARAM_FIELD_REMOTE_ADDRESS`
    pub const REMOTE_ADDRESS: u64 = 1 << 0;
    /// `UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE`
    pub const ERR_HANDLING_MODE: u64 = 1 << 1;
    /// `UCP_EP_PARAM_FIELD_ERR_HANDLER`
    pub const ERR_HANDLER: u64 = 1 << 2;
    /// `UCP_EP_PARAM_FIELD_USER_DATA`
    pub const USER_DATA: u64 = 1 << 3;
    /// `UCP_EP_PARAM_FIELD_SOCK_ADDR`
    pub const SOCK_ADDR: u64 = 1 << 4;
    /// `UCP_EP_PARAM_FIELD_FLAGS`
    pub const FLAGS: u64 = 1 << 5;
    /// `UCP_EP_PARAM_FIELD_CONN_REQUEST`
    pub const CONN_REQUEST: u64 = 1 << 6;
}

/// `enum ucp_mem_map_params_field`
pub mod mem_map_param {
    /// `UCP_MEM_MAP_PARAM_FIELD_ADDRESS`
    pub const ADDRESS: u64 = 1 << 0;
    /// `UCP_MEM_MAP_PARAM_FIELD_LENGTH`
    pub const LENGTH: u64 = 1 << 1;
    /// `UCP_MEM_MAP_PARAM_FIELD_FLAGS`
    pub const FLAGS: u64 = 1 << 2;
    /// `UCP_MEM_MAP_PARAM_FIELD_PROT`
    pub const PROT: u64 = 1 << 3;
    /// `UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE`
    pub const MEMORY_TYPE: u64 = 1 << 4;
}

/// Flags of `ucp_mem_map`
pub mod mem_map {
    /// `UCP_MEM_MAP_ALLOCATE`
    pub const ALLOCATE: u32 = 1 << 1;
    /// `UCP_MEM_MAP_FIXED`
    pub const FIXED: u32 = 1 << 2;
}

/// `ucp_atomic_op_t`
pub mod atomic {
    /// `UCP_ATOMIC_OP_ADD`
    pub const ADD: u32 = 0;
    /// `UCP_ATOMIC_OP_SWAP`
    pub const SWAP: u32 = 1;
    /// `UCP_ATOMIC_OP_CSWAP`
    pub const CSWAP: u32 = 2;
    /// `UCP_ATOMIC_OP_AND`
    pub const AND: u32 = 3;
    /// `UCP_ATOMIC_OP_OR`
    pub const OR: u32 = 4;
    /// `UCP_ATOMIC_OP_XOR`
    pub const XOR: u32 = 5;
}

/// `ucp_atomic_fetch_op_t`
pub mod atomic_fetch {
    /// `UCP_ATOMIC_FETCH_OP_FADD`
    pub const FADD: u32 = 0;
    /// `UCP_ATOMIC_FETCH_OP_SWAP`
    pub const SWAP: u32 = 1;
    /// `UCP_ATOMIC_FETCH_OP_CSWAP`
    pub const CSWAP: u32 = 2;
    /// `UCP_ATOMIC_FETCH_OP_FAND`
    pub const FAND: u32 = 3;
    /// `UCP_ATOMIC_FETCH_OP_FOR`
    pub const FOR: u32 = 4;
    /// `UCP_ATOMIC_FETCH_OP_FXOR`
    pub const FXOR: u32 = 5;
}

/// `enum ucp_am_handler_param_field`
pub mod am_handler_param {
    /// `UCP_AM_HANDLER_PARAM_FIELD_ID`
    pub const ID: u64 = 1 << 0;
    /// `UCP_AM_HANDLER_PARAM_FIELD_FLAGS`
    pub const FLAGS: u64 = 1 << 1;
    /// `UCP_AM_HANDLER_PARAM_FIELD_CB`
    pub const CB: u64 = 1 << 2;
    /// `UCP_AM_HANDLER_PARAM_FIELD_ARG`
    pub const ARG: u64 = 1 << 3;
}

/// `enum ucp_am_cb_flags`
pub mod am_handler {
    /// `UCP_AM_FLAG_WHOLE_MSG`
    pub const WHOLE_MSG: u32 = 1 << 0;
    /// `UCP_AM_FLAG_PERSISTENT_DATA`
    pub const PERSISTENT_DATA: u32 = 1 << 1;
}

/// `enum ucp_send_am_flags`
pub mod am_send {
    /// `UCP_AM_SEND_FLAG_REPLY`
    pub const REPLY: u32 = 1 << 0;
    /// `UCP_AM_SEND_FLAG_EAGER`
    pub const EAGER: u32 = 1 << 1;
}

/// `enum ucp_cb_param_flags`
pub mod am_cb_param {
    /// `UCP_CB_PARAM_FLAG_DATA`
    pub const DATA: u32 = 1 << 0;
}

/// `ucp_am_recv_attr_t`
pub mod am_recv_attr {
    /// `UCP_AM_RECV_ATTR_FIELD_REPLY_EP`
    pub const REPLY_EP: u64 = 1 << 0;
    /// `UCP_AM_RECV_ATTR_FLAG_DATA`
    pub const DATA: u64 = 1 << 16;
    /// `UCP_AM_RECV_ATTR_FLAG_RNDV`
    pub const RNDV: u64 = 1 << 17;
}

/// `ucp_op_attr_t`
pub mod op {
    /// `UCP_OP_ATTR_FIELD_REQUEST`
    pub const REQUEST: u32 = 1 << 0;
    /// `UCP_OP_ATTR_FIELD_CALLBACK`
    pub const CALLBACK: u32 = 1 << 1;
    /// `UCP_OP_ATTR_FIELD_USER_DATA`
    pub const USER_DATA: u32 = 1 << 2;
    /// `UCP_OP_ATTR_FIELD_DATATYPE`
    pub const DATATYPE: u32 = 1 << 3;
    /// `UCP_OP_ATTR_FIELD_FLAGS`
    pub const FLAGS: u32 = 1 << 4;
    /// `UCP_OP_ATTR_FIELD_REPLY_BUFFER`
    pub const REPLY_BUFFER: u32 = 1 << 5;
    /// `UCP_OP_ATTR_FIELD_MEMORY_TYPE`
    pub const MEMORY_TYPE: u32 = 1 << 6;
    /// `UCP_OP_ATTR_FIELD_RECV_INFO`
    pub const RECV_INFO: u32 = 1 << 7;
    /// `UCP_OP_ATTR_FIELD_MEMH`
    pub const MEMH: u32 = 1 << 8;
    /// `UCP_OP_ATTR_FLAG_NO_IMM_CMPL`
    pub const NO_IMM_CMPL: u32 = 1 << 16;
    /// `UCP_OP_ATTR_FLAG_FAST_CMPL`
    pub const FAST_CMPL: u32 = 1 << 17;
    /// `UCP_OP_ATTR_FLAG_FORCE_IMM_CMPL`
    pub const FORCE_IMM_CMPL: u32 = 1 << 18;
    /// `UCP_OP_ATTR_FLAG_MULTI_SEND`
    pub const MULTI_SEND: u32 = 1 << 19;
}

/// `ucp_req_attr_field`
pub mod request_attr {
    /// `UCP_REQUEST_ATTR_FIELD_INFO_STRING`
    pub const INFO_STRING: u64 = 1 << 0;
    /// `UCP_REQUEST_ATTR_FIELD_INFO_STRING_SIZE`
    pub const INFO_STRING_SIZE: u64 = 1 << 1;
    /// `UCP_REQUEST_ATTR_FIELD_STATUS`
    pub const STATUS: u64 = 1 << 2;
    /// `UCP_REQUEST_ATTR_FIELD_MEM_TYPE`
    pub const MEM_TYPE: u64 = 1 << 3;
}

/// `enum ucp_dt_type`
pub mod dt {
    /// `UCP_DATATYPE_CONTIG`
    pub const CONTIG: u64 = 0;
    /// `UCP_DATATYPE_IOV`
    pub const IOV: u64 = 2;
    /// `UCP_DATATYPE_GENERIC`
    pub const GENERIC: u64 = 7;
    /// `UCP_DATATYPE_SHIFT`
    pub const SHIFT: u64 = 3;
    /// `UCP_DATATYPE_CLASS_MASK`
    pub const CLASS_MASK: u64 = 7;
    /// `ucp_dt_make_contig(1)`: bytes.
    pub const BYTES: u64 = 1 << SHIFT;
}

/// `enum ucp_ep_close_mode` and `ucp_ep_close_flags_t`
pub mod close {
    /// `UCP_EP_CLOSE_MODE_FORCE`
    pub const MODE_FORCE: u32 = 0;
    /// `UCP_EP_CLOSE_MODE_FLUSH`
    pub const MODE_FLUSH: u32 = 1;
    /// `UCP_EP_CLOSE_FLAG_FORCE`
    pub const FLAG_FORCE: u32 = 1 << 0;
}

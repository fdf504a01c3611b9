//! Sizes, offsets and values, as the Rust compiler sees them.

use std::mem::{offset_of, size_of};

use symvirt_ffi::{flags, ucp, ucs};

use crate::source::Constant;

/// A field of a struct of ours.
#[derive(Debug)]
pub struct Field {
    /// Our name.
    pub rust: &'static str,
    /// The C member.
    pub c: &'static str,
    /// Offset in bytes.
    pub offset: usize,
}

/// A struct of ours and its C original.
#[derive(Debug)]
pub struct Struct {
    /// Our name.
    pub rust: &'static str,
    /// The C type.
    pub c: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// All fields.
    pub fields: Vec<Field>,
}

macro_rules! layout {
    ($($module:ident :: $rust:ident = $c:literal {
        $($field:ident $(as $c_field:literal)?),* $(,)?
    })*) => {
        vec![$(Struct {
            rust: stringify!($rust),
            c: $c,
            size: size_of::<$module::$rust>(),
            fields: vec![$(Field {
                rust: stringify!($field),
                c: layout!(@name $field $($c_field)?),
                offset: offset_of!($module::$rust, $field),
            }),*],
        }),*]
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $c_field:literal) => { $c_field };
}

/// Every `#[repr(C)]` struct of `symvirt_ffi`.
pub fn structs() -> Vec<Struct> {
    layout! {
        ucs::CpuSet = "ucs_cpu_set_t" { bits as "ucs_bits" }
        ucs::SockAddr = "ucs_sock_addr_t" { addr, addrlen }
        ucp::TagRecvInfo = "ucp_tag_recv_info_t" { sender_tag, length }
        ucp::ErrHandler = "ucp_err_handler_t" { cb, arg }
        ucp::Params = "ucp_params_t" {
            field_mask, features, request_size, request_init, request_cleanup, tag_sender_mask,
            mt_workers_shared, estimated_num_eps, estimated_num_ppn, name,
        }
        ucp::ContextAttr = "ucp_context_attr_t" {
            field_mask, request_size, thread_mode, memory_types, name,
        }
        ucp::WorkerParams = "ucp_worker_params_t" {
            field_mask, thread_mode, cpu_mask, events, user_data, event_fd, flags, name,
            am_alignment, client_id,
        }
        ucp::WorkerAttr = "ucp_worker_attr_t" {
            field_mask, thread_mode, address_flags, address, address_length, max_am_header, name,
            max_debug_string,
        }
        ucp::WorkerAddressAttr = "ucp_worker_address_attr_t" { field_mask, worker_uid }
        ucp::EpParams = "ucp_ep_params_t" {
            field_mask, address, err_mode, err_handler, user_data, flags, sockaddr, conn_request,
            name, local_sockaddr,
        }
        ucp::MemMapParams = "ucp_mem_map_params_t" {
            field_mask, address, length, flags, prot, memory_type,
        }
        ucp::AmHandlerParam = "ucp_am_handler_param_t" { field_mask, id, flags, cb, arg }
        ucp::AmRecvParam = "ucp_am_recv_param_t" { recv_attr, reply_ep }
        ucp::RequestParam = "ucp_request_param_t" {
            op_attr_mask, flags, request, cb, datatype, user_data, reply_buffer, memory_type,
            recv_info, memh,
        }
        ucp::RequestAttr = "ucp_request_attr_t" {
            field_mask, debug_string, debug_string_size, status, mem_type,
        }
        ucp::DtIov = "ucp_dt_iov_t" { buffer, length }
        ucp::GenericDtOps = "ucp_generic_dt_ops_t" {
            start_pack, start_unpack, packed_size, pack, unpack, finish,
        }
    }
}

/// What is passed by value and is neither a struct nor a pointer: a size that is wrong by three bytes
/// of padding is seen in no struct. `ucs_status_t` is packed into one.
pub fn value_asserts() -> Vec<String> {
    let sizes = [
        ("ucs_status_t", size_of::<ucs::Status>()),
        ("ucs_thread_mode_t", size_of::<ucs::ThreadMode>()),
        ("ucs_memory_type_t", size_of::<ucs::MemoryType>()),
        ("ucp_tag_t", size_of::<ucp::Tag>()),
        ("ucp_datatype_t", size_of::<ucp::Datatype>()),
        ("ucp_atomic_op_t", size_of::<ucp::AtomicOp>()),
        ("ucp_atomic_post_op_t", size_of::<ucp::AtomicPostOp>()),
        ("ucp_atomic_fetch_op_t", size_of::<ucp::AtomicFetchOp>()),
    ];
    let assert = |(c, size)| format!("_Static_assert(sizeof({c}) == {size}, \"size of {c}\");");
    let mut asserts: Vec<String> = sizes.into_iter().map(assert).collect();
    asserts.push("_Static_assert((ucs_status_t)-1 < 0, \"sign of ucs_status_t\");".to_owned());
    asserts
}

fn guarded(from_minor: u32, assertion: String) -> String {
    match from_minor {
        0 => assertion,
        minor => {
            format!("#if UCP_API_VERSION >= UCP_VERSION(1, {minor})\n{assertion}\n#endif")
        }
    }
}

/// Offsets of all fields, and sizes. Structs grow at their end from version to version, so ours
/// may be shorter than the installed one, and has to be equal under 1.13, which it was written
/// for.
pub fn struct_asserts(structs: &[Struct]) -> Vec<String> {
    let mut asserts = Vec::new();
    for one in structs {
        for field in &one.fields {
            let assertion = format!(
                "_Static_assert(offsetof({c}, {member}) == {offset}, \"{c}.{member}\");",
                c = one.c,
                member = field.c,
                offset = field.offset,
            );
            asserts.push(assertion);
        }
        let size = one.size;
        asserts.push(format!(
            "#if UCP_API_VERSION >= UCP_VERSION(1, 14)\n\
             _Static_assert(sizeof({c}) >= {size}, \"{c} shrank\");\n\
             #else\n\
             _Static_assert(sizeof({c}) == {size}, \"size of {c}\");\n\
             #endif",
            c = one.c,
        ));
    }
    asserts
}

/// The value of a constant. What the source says is evaluated by the C compiler; `Status(-2)`
/// and `SHIFT` are ours.
pub fn constant_assert(constant: &Constant) -> String {
    let value = constant
        .value
        .trim_start_matches("Status(")
        .trim_end_matches(')')
        .replace("SHIFT", &flags::dt::SHIFT.to_string());
    let assertion = format!(
        "_Static_assert({c} == ({value}), \"{c}\");",
        c = constant.c_name
    );
    guarded(constant.from_minor.unwrap_or(0), assertion)
}

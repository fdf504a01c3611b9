//! Every public `ucp_*` function of the headers, and what libsymvirt does with it.
//!
//! | disposition | means |
//! |---|---|
//! | [`Disposition::Handled`] | a function of ours that translates handles |
//! | [`Disposition::Guarded`] | a jump into the real library, unless the first argument is a handle of ours: then it is refused with `UCS_ERR_UNSUPPORTED` and one message that names the function |
//! | [`Disposition::Forwarded`] | a jump into the real library: takes no handle of ours |
//!
//! A context that asks for streams or wake-up is not virtualized: its handles are the real ones,
//! everything on it passes through, and its process vetoes every switch, saying why. So a guarded
//! function is refused only where UCX itself would have had no such feature.

/// What libsymvirt does with a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Implemented.
    Handled,
    /// Passed through for real handles, refused for ours.
    Guarded,
    /// Passed through.
    Forwarded,
}

/// Calls `$callback!` with the names of all guarded functions.
#[macro_export]
macro_rules! guarded_exports {
    ($callback:ident) => {
        $callback! {
            // Memory shared with a DPU; keys of one worker compared.
            ucp_memh_pack, ucp_rkey_compare,
            // Streams.
            ucp_stream_data_release, ucp_stream_recv_data_nb, ucp_stream_recv_nb,
            ucp_stream_recv_nbx, ucp_stream_send_nb, ucp_stream_send_nbx,
            ucp_stream_worker_poll,
            // Connections by socket address.
            ucp_listener_create,
            // Wake-up by file descriptor.
            ucp_worker_arm, ucp_worker_get_efd, ucp_worker_signal, ucp_worker_wait,
            ucp_worker_wait_mem,
            // Changing an endpoint.
            ucp_ep_modify_nb,
        }
    };
}

/// Calls `$callback!` with the names of all forwarded functions.
#[macro_export]
macro_rules! forwarded_exports {
    ($callback:ident) => {
        $callback! {
            ucp_conn_request_query,
            ucp_dt_query,
            ucp_listener_destroy, ucp_listener_query, ucp_listener_reject,
            ucp_memh_buffer_release,
            ucp_stream_recv_request_test,
        }
    };
}

macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$(stringify!($name)),*] };
}

/// Names of the guarded functions.
pub const GUARDED: &[&str] = guarded_exports!(names);

/// Names of the forwarded functions.
pub const FORWARDED: &[&str] = forwarded_exports!(names);

/// Names of the functions that libsymvirt implements.
pub const HANDLED: &[&str] = &[
    // Library and configuration.
    "ucp_get_version",
    "ucp_get_version_string",
    "ucp_lib_query",
    "ucp_config_read",
    "ucp_config_modify",
    "ucp_config_print",
    "ucp_config_release",
    // Contexts.
    "ucp_init_version",
    "ucp_cleanup",
    "ucp_context_query",
    "ucp_context_print_info",
    "ucp_mem_print_info",
    // Workers.
    "ucp_worker_create",
    "ucp_worker_destroy",
    "ucp_worker_query",
    "ucp_worker_print_info",
    "ucp_worker_get_address",
    "ucp_worker_release_address",
    "ucp_worker_address_query",
    "ucp_worker_progress",
    "ucp_worker_fence",
    "ucp_worker_flush",
    "ucp_worker_flush_nb",
    "ucp_worker_flush_nbx",
    // Endpoints.
    "ucp_ep_create",
    "ucp_ep_destroy",
    "ucp_ep_close_nb",
    "ucp_ep_close_nbx",
    "ucp_disconnect_nb",
    "ucp_ep_query",
    "ucp_ep_print_info",
    "ucp_ep_evaluate_perf",
    "ucp_ep_flush",
    "ucp_ep_flush_nb",
    "ucp_ep_flush_nbx",
    // Tag matching.
    "ucp_tag_send_nb",
    "ucp_tag_send_nbr",
    "ucp_tag_send_nbx",
    "ucp_tag_send_sync_nb",
    "ucp_tag_send_sync_nbx",
    "ucp_tag_recv_nb",
    "ucp_tag_recv_nbr",
    "ucp_tag_recv_nbx",
    "ucp_tag_probe_nb",
    "ucp_tag_msg_recv_nb",
    "ucp_tag_msg_recv_nbx",
    // Registered memory and remote keys.
    "ucp_mem_map",
    "ucp_mem_unmap",
    "ucp_mem_query",
    "ucp_mem_advise",
    "ucp_rkey_pack",
    "ucp_rkey_buffer_release",
    "ucp_ep_rkey_unpack",
    "ucp_rkey_destroy",
    "ucp_rkey_ptr",
    // Remote memory access.
    "ucp_put",
    "ucp_put_nb",
    "ucp_put_nbi",
    "ucp_put_nbx",
    "ucp_get",
    "ucp_get_nb",
    "ucp_get_nbi",
    "ucp_get_nbx",
    // Atomics.
    "ucp_atomic_post",
    "ucp_atomic_fetch_nb",
    "ucp_atomic_op_nbx",
    "ucp_atomic_add32",
    "ucp_atomic_add64",
    "ucp_atomic_fadd32",
    "ucp_atomic_fadd64",
    "ucp_atomic_swap32",
    "ucp_atomic_swap64",
    "ucp_atomic_cswap32",
    "ucp_atomic_cswap64",
    // Active messages.
    "ucp_worker_set_am_handler",
    "ucp_worker_set_am_recv_handler",
    "ucp_am_send_nb",
    "ucp_am_send_nbx",
    "ucp_am_recv_data_nbx",
    "ucp_am_data_release",
    // Datatypes.
    "ucp_dt_create_generic",
    "ucp_dt_destroy",
    // Requests.
    "ucp_request_alloc",
    "ucp_request_cancel",
    "ucp_request_check_status",
    "ucp_request_free",
    "ucp_request_is_completed",
    "ucp_request_query",
    "ucp_request_release",
    "ucp_request_test",
    "ucp_tag_recv_request_test",
];

/// What libsymvirt does with the function of this name; `None` if it is not on the list.
pub fn disposition(name: &str) -> Option<Disposition> {
    let lists = [
        (HANDLED, Disposition::Handled),
        (GUARDED, Disposition::Guarded),
        (FORWARDED, Disposition::Forwarded),
    ];
    lists
        .into_iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, kind)| kind)
}

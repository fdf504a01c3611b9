//! Function types: from the Rust of our declarations to C.

use crate::source::{self, Function};

/// The C spelling of a Rust type.
fn c_type(rust: &str) -> String {
    if let Some(inner) = rust.strip_prefix("*const ") {
        return format!("const {} *", c_type(inner));
    }
    if let Some(inner) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(inner));
    }
    match rust
        .rsplit("::")
        .next()
        .expect("rsplit yields at least one part")
    {
        "Context" => "ucp_context_h",
        "Worker" => "ucp_worker_h",
        "Ep" => "ucp_ep_h",
        "Config" => "ucp_config_t *",
        "Address" => "ucp_address_t *",
        "Message" => "ucp_tag_message_h",
        "Memh" => "ucp_mem_h",
        "Rkey" => "ucp_rkey_h",
        "MemMapParams" => "ucp_mem_map_params_t",
        "AtomicOp" => "ucp_atomic_op_t",
        "AtomicPostOp" => "ucp_atomic_post_op_t",
        "AtomicFetchOp" => "ucp_atomic_fetch_op_t",
        "Tag" => "ucp_tag_t",
        "Datatype" => "ucp_datatype_t",
        "Status" => "ucs_status_t",
        "StatusPtr" => "ucs_status_ptr_t",
        "Params" => "ucp_params_t",
        "ContextAttr" => "ucp_context_attr_t",
        "WorkerParams" => "ucp_worker_params_t",
        "WorkerAttr" => "ucp_worker_attr_t",
        "WorkerAddressAttr" => "ucp_worker_address_attr_t",
        "EpParams" => "ucp_ep_params_t",
        "EpAttr" => "ucp_ep_attr_t",
        "EpEvaluatePerfParam" => "ucp_ep_evaluate_perf_param_t",
        "EpEvaluatePerfAttr" => "ucp_ep_evaluate_perf_attr_t",
        "LibAttr" => "ucp_lib_attr_t",
        "AmHandlerParam" => "ucp_am_handler_param_t",
        "AmRecvParam" => "ucp_am_recv_param_t",
        "AmCallback" => "ucp_am_callback_t",
        "RequestParam" => "ucp_request_param_t",
        "RequestAttr" => "ucp_request_attr_t",
        "TagRecvInfo" => "ucp_tag_recv_info_t",
        "GenericDtOps" => "ucp_generic_dt_ops_t",
        "RequestInit" => "ucp_request_init_callback_t",
        "SendCallback" => "ucp_send_callback_t",
        "SendNbxCallback" => "ucp_send_nbx_callback_t",
        "TagRecvCallback" => "ucp_tag_recv_callback_t",
        "TagRecvNbxCallback" => "ucp_tag_recv_nbx_callback_t",
        "c_void" => "void",
        "c_char" => "char",
        "c_int" | "i32" => "int",
        "c_uint" | "u32" => "unsigned",
        "u16" => "uint16_t",
        "usize" => "size_t",
        "u64" => "uint64_t",
        "File" | "FILE" => "FILE",
        other => panic!("signature.rs has no C type for {other}"),
    }
    .to_owned()
}

fn pointer_to(function: &Function) -> String {
    let arguments: Vec<String> = function.arguments.iter().map(|ty| c_type(ty)).collect();
    let arguments = if arguments.is_empty() {
        "void".to_owned()
    } else {
        arguments.join(", ")
    };
    let result = function.result.as_deref().map_or("void".to_owned(), c_type);
    format!("{result} (*)({arguments})")
}

/// Asserts that `c_name` has this signature. Our handles of opaque structs do not say `const`, so
/// for them either is right.
pub fn function_assert(c_name: &str, function: &Function) -> String {
    let plain = pointer_to(function);
    let constant =
        ["ucp_config_t *", "ucp_address_t *"]
            .iter()
            .fold(plain.clone(), |text, opaque| {
                text.replace(&format!("{opaque},"), &format!("const {opaque},"))
                    .replace(&format!("{opaque})"), &format!("const {opaque})"))
            });
    format!("ASSERT_SIGNATURE({c_name}, SAME({c_name}, {plain}) || SAME({c_name}, {constant}));")
}

/// Asserts that what we export under a C name takes and returns what the header says. Where ours
/// says `void *`, any pointer will do: the exports tell handles apart themselves.
pub fn export_assert(c_name: &str, parameters: &[String], function: &Function) -> String {
    assert_eq!(
        parameters.len(),
        function.arguments.len(),
        "arguments of {c_name}"
    );
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: Vec<&str> = parameters
        .iter()
        .map(|parameter| parameter.rsplit(|c| !is_name(c)).next().unwrap_or_default())
        .collect();
    let mut body = String::new();
    for (name, ours) in names.iter().zip(&function.arguments) {
        body += &format!(
            "    {}\n",
            value_assert(&format!("{c_name}({name})"), name, ours)
        );
    }
    let call = format!("{c_name}({})", names.join(", "));
    body += &match function.result.as_deref() {
        Some(ours) => format!(
            "    {}\n",
            value_assert(&format!("{c_name} result"), &call, ours)
        ),
        None => format!("    SAME_TYPE(\"{c_name} result\", __typeof__({call}), void);\n"),
    };
    format!(
        "static inline void check_{c_name}({}) {{\n{body}}}",
        parameters.join(", ")
    )
}

/// Types that are pointers to something the exports do not look into.
const OPAQUE: [&str; 9] = [
    "c_void",
    "Context",
    "Worker",
    "Ep",
    "Config",
    "Address",
    "Message",
    "Memh",
    "ConnRequest",
];

fn value_assert(what: &str, value: &str, ours: &str) -> String {
    let pointee = ours
        .trim_start_matches("*mut ")
        .trim_start_matches("*const ");
    if OPAQUE.contains(&pointee) {
        return format!("IS_POINTER(\"{what}\", {value});");
    }
    format!(
        "SAME_TYPE(\"{what}\", __typeof__({value}), {});",
        c_type(ours)
    )
}

/// Asserts for the callback types, and for the members of `ucp_generic_dt_ops_t`.
pub fn callback_asserts(source: &str) -> Vec<String> {
    let mut asserts = Vec::new();
    for (at, _) in source.match_indices("unsafe extern \"C\" fn(") {
        let open = source[at..].find('(').expect("just matched") + at;
        let function = source::signature("callback", &source[open..]);
        for name in names_before(&source[..at]) {
            let c_type = if name.ends_with("_t") || name.ends_with("_cb_t") {
                name.clone()
            } else {
                format!("__typeof__(((ucp_generic_dt_ops_t *)0)->{name})")
            };
            asserts.push(format!(
                "SAME_TYPE(\"{name}\", {c_type}, {});",
                pointer_to(&function)
            ));
        }
    }
    asserts
}

/// The C names in the doc comment that stands last in `text`.
fn names_before(text: &str) -> Vec<String> {
    let comment = text
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("///"));
    let comment = comment.expect("every declaration has a comment");
    comment
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

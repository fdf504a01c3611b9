//! The C ABI check: what `symvirt_ffi` declares is what the installed UCX headers say.
//!
//! ```text
//!   ffi/src, symvirt-guest/src/export ── source.rs ──► names, signatures
//!   size_of, offset_of!, constants    ── layout.rs ──► numbers
//!                        both ──► static asserts in C ──► cc -fsyntax-only, with <ucp/api/ucp.h>
//! ```
//!
//! Names come from the source, so nothing that is declared can be forgotten here; numbers come
//! from the compiler. Only the headers of the machine are consulted; what newer versions added is
//! guarded by `UCP_API_VERSION`.

mod layout;
mod macros;
mod signature;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use symvirt_ffi::exports::HANDLED;

const PRELUDE: &str = "\
#include <stddef.h>
#include <ucp/api/ucp.h>
#define SAME(name, ...) __builtin_types_compatible_p(__typeof__(&name), __VA_ARGS__)
#define ASSERT_SIGNATURE(name, ...) _Static_assert(__VA_ARGS__, \"signature of \" #name)
#define SAME_TYPE(what, type, ...) _Static_assert( \\
    __builtin_types_compatible_p(type, __VA_ARGS__), \"type of \" what)
#define IS_POINTER(what, value) _Static_assert( \\
    __builtin_classify_type(value) == 5, \"not a pointer: \" what)
";

fn ffi_source(name: &str) -> String {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// Compiles `body` behind the prelude.
fn compiles(name: &str, body: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.c"));
    std::fs::write(&file, format!("{PRELUDE}{body}")).map_err(|error| error.to_string())?;
    let output = Command::new("cc")
        .args([
            "-std=gnu11",
            "-fsyntax-only",
            "-Wno-deprecated-declarations",
        ])
        .arg(&file)
        .output()
        .map_err(|error| format!("run cc: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{}:\n{stderr}", file.display()))
    }
}

fn assert_compiles(name: &str, asserts: &[String]) {
    assert!(!asserts.is_empty(), "{name}: nothing was found to check");
    if let Err(message) = compiles(name, &asserts.join("\n")) {
        panic!("{message}");
    }
}

#[test]
fn a_false_expectation_is_noticed() {
    let wrong = "_Static_assert(offsetof(ucp_params_t, features) == 9, \"\");\n";
    assert!(compiles("wrong_offset", wrong).is_err());
    let wrong = "_Static_assert(SAME(ucp_worker_progress, int (*)(ucp_worker_h)), \"\");\n";
    assert!(compiles("wrong_signature", wrong).is_err());
}

#[test]
fn every_struct_has_the_size_and_offsets_of_the_headers() {
    let asserts = layout::struct_asserts(&layout::structs());
    assert_compiles("structs", &asserts);
}

#[test]
fn what_is_passed_by_value_has_the_size_of_the_headers() {
    assert_compiles("values", &layout::value_asserts());
}

#[test]
fn every_declared_struct_and_field_is_checked() {
    let checked = layout::structs();
    for declared in source::structs(&[&ffi_source("ucp.rs"), &ffi_source("ucs.rs")]) {
        let Some(found) = checked.iter().find(|one| one.rust == declared.name) else {
            panic!("struct {} is not in layout.rs", declared.name);
        };
        let fields: Vec<&str> = found.fields.iter().map(|field| field.rust).collect();
        assert_eq!(fields, declared.fields, "fields of {}", declared.name);
    }
}

#[test]
fn every_constant_has_the_value_of_the_headers() {
    let constants = [
        source::constants(&ffi_source("flags.rs")),
        source::constants(&ffi_source("ucs.rs")),
    ]
    .concat();
    assert!(
        constants.len() > 60,
        "only {} constants were found",
        constants.len()
    );
    let asserts: Vec<String> = constants.iter().map(layout::constant_assert).collect();
    assert_compiles("constants", &asserts);
}

#[test]
fn every_function_that_is_called_has_the_signature_of_the_headers() {
    let asserts: Vec<String> = source::functions(&ffi_source("functions.rs"), "\n    fn ")
        .iter()
        .map(|function| signature::function_assert(&format!("ucp_{}", function.name), function))
        .collect();
    assert_compiles("called", &asserts);
}

#[test]
fn every_callback_has_the_type_of_the_headers() {
    let asserts = signature::callback_asserts(&ffi_source("ucp.rs"));
    assert_compiles("callbacks", &asserts);
}

#[test]
fn every_exported_function_has_the_signature_of_the_headers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../symvirt-guest/src/export");
    let headers = preprocessed_headers();
    let mut asserts = Vec::new();
    let mut checked = BTreeSet::new();
    for file in rust_files(&folder) {
        let text = read(&file);
        let mut functions = source::functions(&text, "extern \"C\" fn ucp_");
        functions.extend(macros::functions(&text));
        for function in functions {
            let name = format!("ucp_{}", function.name);
            let parameters = source::parameters(&headers, &name)
                .unwrap_or_else(|| panic!("{name} is exported, but in no header"));
            asserts.push(signature::export_assert(&name, &parameters, &function));
            checked.insert(name);
        }
    }
    let handled: BTreeSet<String> = HANDLED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(checked, handled, "checked, and on the list of exports");
    assert_compiles("exported", &asserts);
}

fn preprocessed_headers() -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("signatures.c");
    std::fs::write(&file, PRELUDE).expect("write a probe");
    let output = Command::new("cc")
        .args(["-E", "-P"])
        .arg(&file)
        .output()
        .expect("run cc");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("headers are UTF-8")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("directory entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

//! The export list is whole: nothing of UCP's public interface passes by unnoticed, and the
//! library exports exactly what the list says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use symvirt_ffi::exports::{FORWARDED, GUARDED, HANDLED};
use symvirt_tests::built;

/// Public functions that came after UCX 1.13, and the version that brought each.
const NEWER: &[(&str, (u32, u32))] = &[
    ("ucp_dt_query", (1, 14)),
    ("ucp_memh_pack", (1, 14)),
    ("ucp_memh_buffer_release", (1, 14)),
    ("ucp_rkey_compare", (1, 16)),
];

fn listed() -> BTreeSet<String> {
    [HANDLED, GUARDED, FORWARDED]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

fn stdout_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stderr}",
        output.status
    );
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Functions that the installed headers declare: in their preprocessed text, an identifier that
/// begins with `ucp_`, outside any braces and parentheses, before a `(`. What is `static inline`
/// is compiled into the application and no business of ours.
fn declared() -> BTreeSet<String> {
    let probe = Path::new(env!("CARGO_TARGET_TMPDIR")).join("declared.c");
    std::fs::write(&probe, "#include <ucp/api/ucp.h>\n").expect("write the probe");
    let text = stdout_of(Command::new("cc").args(["-E", "-P"]).arg(&probe));
    let (mut names, mut before, mut inline, mut depth) = (BTreeSet::new(), "", false, 0_u32);
    for token in tokens(&text) {
        match token {
            "(" | "{" => {
                if token == "(" && depth == 0 && !inline && before.starts_with("ucp_") {
                    names.insert(before.to_owned());
                }
                depth += 1;
            }
            ")" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            inline = token == "static" || (inline && token != ";" && token != "}");
        }
        before = token;
    }
    names
}

/// Identifiers and numbers, and every other character by itself; no white space.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split_inclusive(move |c: char| !is_word(c))
        .flat_map(move |piece| {
            let word = piece.trim_end_matches(|c: char| !is_word(c));
            [word, piece[word.len()..].trim()]
        })
        .filter(|token| !token.is_empty())
}

#[test]
fn no_function_is_listed_twice() {
    assert_eq!(
        listed().len(),
        HANDLED.len() + GUARDED.len() + FORWARDED.len()
    );
}

#[test]
fn every_public_function_of_the_headers_is_listed() {
    let declared = declared();
    assert!(
        declared.len() > 100,
        "only {} functions were found in the headers",
        declared.len()
    );
    let missing: Vec<_> = declared.difference(&listed()).cloned().collect();
    assert!(missing.is_empty(), "not on the list: {missing:?}");
}

#[test]
fn what_is_listed_is_in_the_headers_or_newer_than_them() {
    let header = std::fs::read_to_string("/usr/include/ucp/api/ucp_version.h")
        .expect("read the version header");
    let number = |name: &str| -> u32 {
        let line = header
            .lines()
            .find(|line| line.contains(name))
            .expect("version is defined");
        line.split_whitespace()
            .last()
            .and_then(|text| text.parse().ok())
            .expect("a number")
    };
    let installed = (number("UCP_API_MAJOR "), number("UCP_API_MINOR "));
    let declared = declared();
    for name in listed() {
        let newer = NEWER
            .iter()
            .any(|(known, from)| *known == name && *from > installed);
        assert!(newer || declared.contains(&name), "{name} is in no header");
    }
}

#[test]
fn the_library_exports_exactly_the_list() {
    let symbols = stdout_of(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(&built::release().library),
    );
    let exported: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .filter(|name| name.starts_with("ucp_"))
        .map(str::to_owned)
        .collect();
    let listed = listed();
    let (missing, extra): (Vec<_>, Vec<_>) = (
        listed.difference(&exported).collect(),
        exported.difference(&listed).collect(),
    );
    assert!(missing.is_empty(), "listed, but not exported: {missing:?}");
    assert!(extra.is_empty(), "exported, but not listed: {extra:?}");
}

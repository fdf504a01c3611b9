//! Exports that macros write. Not an expander: it knows the two forms in which ours are invoked,
//! and the tests fail when an export of the list is not found.
//!
//! | matcher | invocation is read |
//! |---|---|
//! | `$a:ident, $b:ty …`, or `$($a:ident: $b:ty …;)*` | word by word, put into the macro's body |
//! | with `fn $name:ident(…)` | as the declaration that it is |

use crate::source::{self, Function, between};

/// All functions that macros of this file export.
pub fn functions(source: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for part in source.split("macro_rules! ").skip(1) {
        let (name, rest) = part.split_once(" {").expect("a macro has a body");
        let definition = rest.split_once("\n}\n").expect("a macro ends").0;
        if !definition.contains("extern \"C\" fn $") {
            continue;
        }
        let (matcher, body) = definition.split_once(" => {").expect("a macro has an arm");
        for invocation in invocations(source, name) {
            if matcher.contains("fn $") {
                found.extend(source::functions(invocation, "fn ucp_"));
                continue;
            }
            for item in items(invocation, matcher) {
                let written = written(matcher, body, item);
                found.extend(source::functions(&written, "extern \"C\" fn ucp_"));
            }
        }
    }
    found
}

fn invocations<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let (braced, round) = (format!("\n{name}! {{"), format!("\n{name}!("));
    let forms = [(&braced, "\n}"), (&round, "\n)")];
    let found = forms.map(|(open, close)| {
        let rest = source.split(open.as_str()).skip(1);
        rest.filter_map(|rest| between(rest, "", close))
            .collect::<Vec<_>>()
    });
    found.concat()
}

/// A macro that repeats is written once for each item.
fn items<'a>(invocation: &'a str, matcher: &str) -> Vec<&'a str> {
    let items = if matcher.contains("$(") {
        invocation.split(';').collect()
    } else {
        vec![invocation]
    };
    items
        .into_iter()
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

fn written(matcher: &str, body: &str, item: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let variables: Vec<&str> = matcher
        .split('$')
        .filter_map(|piece| piece.split_once(':'))
        .map(|(name, _)| name)
        .filter(|name| !name.is_empty() && name.chars().all(is_name))
        .collect();
    let paths_whole = item.replace("::", "\0");
    let values = paths_whole
        .split([',', ':'])
        .map(|value| value.trim().replace('\0', "::"));
    let values: Vec<String> = values.collect();
    assert_eq!(variables.len(), values.len(), "words of {item}");
    let mut bound: Vec<(&str, String)> = variables.into_iter().zip(values).collect();
    // `$nbx` before `$nb`.
    bound.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let text = body.to_owned();
    bound.iter().fold(text, |text, (name, value)| {
        text.replace(&format!("${name}"), value)
    })
}

//! The Debian mirror of this machine, read from its own apt sources when it is needed.
//!
//! Only the standard library: `xtask` compiles this file too, on machines where nothing is
//! installed yet.

use std::path::{Path, PathBuf};

/// URI of the archive that gives this machine its main `suite` (for example `bookworm`).
pub fn of_suite(suite: &str) -> Option<String> {
    source_files()
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|text| in_text(&text, suite))
}

/// Whether apt knows a source of `suite`.
pub fn has_suite(suite: &str) -> bool {
    of_suite(suite).is_some()
}

fn source_files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let listed = std::fs::read_dir(Path::new("/etc/apt/sources.list.d"));
    let listed = listed.into_iter().flatten().flatten();
    let mut more: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    more.sort();
    files.extend(more);
    files
}

fn in_text(text: &str, suite: &str) -> Option<String> {
    one_line_style(text, suite).or_else(|| deb822_style(text, suite))
}

fn one_line_style(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, its_suite) = (words.next()?, words.next()?);
        (its_suite == suite).then(|| uri.trim_end_matches('/').to_owned())
    })
}

fn deb822_style(text: &str, suite: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let binary = field("Types")?.split_whitespace().any(|word| word == "deb");
        let disabled = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let listed = field("Suites")?
            .split_whitespace()
            .any(|word| word == suite);
        let uri = field("URIs")?.split_whitespace().next()?;
        (binary && listed && !disabled).then(|| uri.trim_end_matches('/').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_of_sources_are_understood() {
        let old = "# x\ndeb [signed-by=/k a=b] http://m.example/debian/ bookworm main\n";
        let new = "Types: deb deb-src\n# c\nURIs: http://m.example/debian\n\
                   Suites: bookworm bookworm-updates\nComponents: main\n";
        for text in [old, new] {
            assert_eq!(
                in_text(text, "bookworm").as_deref(),
                Some("http://m.example/debian")
            );
            assert_eq!(in_text(text, "bookworm-backports"), None);
        }
    }

    #[test]
    fn a_disabled_source_does_not_count() {
        let text = "Enabled: no\nTypes: deb\nURIs: http://m.example/debian\nSuites: bookworm\n";
        assert_eq!(in_text(text, "bookworm"), None);
    }
}

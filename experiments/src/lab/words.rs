//! What the parts of a bed said last, for whoever looks for a failure's cause: of a run elsewhere
//! often only what it printed is left.

use std::fs;
use std::path::Path;

/// Words by which a guest's kernel says that something is wrong with it.
const COMPLAINTS: [&str; 7] = [
    "BUG:",
    "kernel BUG",
    "Oops",
    "Kernel panic",
    "corruption",
    "soft lockup",
    "self-detected stall",
];
/// Most lines of each log.
const LINES: usize = 6;

/// Of a bed's directory: complaints of guests' kernels, and the daemons' last warnings.
pub fn last_words(bed: &Path) -> Vec<String> {
    let mut words = Vec::new();
    for host in files_of(bed) {
        for vm in files_of(&host.join("vms")) {
            let said = lines(&vm.join("console.log"), |line| {
                COMPLAINTS.iter().any(|complaint| line.contains(complaint))
            });
            words.extend(said.into_iter().take(LINES));
        }
        if host.extension().is_some_and(|extension| extension == "log") {
            let warnings = lines(&host, |line| {
                line.contains(" WARN ") || line.contains("ERROR ")
            });
            let earlier = warnings.len().saturating_sub(LINES);
            words.extend(warnings.into_iter().skip(earlier));
        }
    }
    words
}

fn files_of(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// With the last two parts of the file's path before each.
fn lines(file: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let content = fs::read(file).unwrap_or_default();
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    let name = parts[parts.len().saturating_sub(2)..].join("/");
    String::from_utf8_lossy(&content)
        .lines()
        .filter(|line| wanted(line))
        .map(|line| format!("{name}: {}", line.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_complains_and_the_last_warnings_are_quoted() {
        let bed = tempfile::tempdir().unwrap();
        let vm = bed.path().join("a/vms/g1.0");
        fs::create_dir_all(&vm).unwrap();
        fs::write(
            vm.join("console.log"),
            "guest-boot: g1 ready\n[ 1.0] kernel BUG at list_debug.c\n",
        )
        .unwrap();
        let warnings: String = (0..9)
            .map(|n| format!("t  WARN w{n}\nt  INFO i\n"))
            .collect();
        fs::write(bed.path().join("a.log"), warnings).unwrap();
        let words = last_words(bed.path());
        assert_eq!(
            words[0],
            "g1.0/console.log: [ 1.0] kernel BUG at list_debug.c"
        );
        assert_eq!(words.len(), 1 + LINES);
        assert!(words[LINES].ends_with("w8"), "{words:?}");
    }
}

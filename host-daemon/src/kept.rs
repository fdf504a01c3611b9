//! Small files that must survive a crash whole: replaced in one step, on disk before anything goes
//! on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces the file at `path` by `value` as JSON; after a crash it holds the one or the other.
///
/// # Errors
/// Those of the file system; the file is as before, or as wanted.
pub(crate) fn replace(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// What [`replace`] has left in a directory, which need not exist, with the key that `key` makes of
/// each file's name without `.json`; files without a key are passed over. One that cannot be
/// understood is told of, as no `what`, and left alone.
///
/// # Errors
/// Those of the file system.
pub(crate) fn read_all<K, T: DeserializeOwned>(
    directory: &Path,
    what: &str,
    key: impl Fn(&str) -> Option<K>,
) -> io::Result<Vec<(K, T)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let name = path.file_stem().filter(|_| json);
        let Some(key) = name.and_then(|name| key(&name.to_string_lossy())) else {
            continue;
        };
        match serde_json::from_slice(&fs::read(&path)?) {
            Ok(value) => all.push((key, value)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no {what}; left alone");
            }
        }
    }
    Ok(all)
}

/// Removes a file, if it is there.
///
/// # Errors
/// Those of the file system; the file stands.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

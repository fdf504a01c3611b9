//! Small files that must survive a crash whole: replaced in one step, on disk before anything goes
//! on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

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

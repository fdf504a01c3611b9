//! Records on disk, as JSON: one command writes them, a later one reads them.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a record; its directory is made.
///
/// # Errors
/// When the file cannot be written.
pub fn write(file: &Path, record: &impl Serialize) -> anyhow::Result<()> {
    let directory = file.parent().unwrap_or(file);
    let text = serde_json::to_string_pretty(record)?;
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(file, text))
        .with_context(|| format!("write {}", file.display()))
}

/// Reads a record that `command` writes.
///
/// # Errors
/// When the file cannot be read, or holds no record.
pub fn read<T: DeserializeOwned>(file: &Path, command: &str) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| {
        let file = file.display();
        format!("read {file}; `{command}` writes it")
    })?;
    serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))
}

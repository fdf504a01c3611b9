//! What an operator writes: one TOML file per host ([`HostConfig`]) and one per VM ([`VmSpec`]).
//!
//! A file that is not what is expected is refused with its name, the line, and what was expected
//! there; unknown keys are refused too, so that a misspelt key is not silently a default.

mod host;
mod names;
mod role;
mod spec;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use host::{Arguments, HcaConfig, HostConfig, PeerConfig, TlsFiles};
pub use names::{ByteSize, GangName, HcaName, HostName, MacAddress, NameError, UserName, VmName};
pub use role::Role;
pub use spec::{DiskFormat, DiskSpec, HcaRequest, NetSpec, VmSpec};

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or not what is expected.
    #[error("{path}, line {line}: {message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong and what was expected.
        message: String,
    },
    /// Well-formed, but contradictory.
    #[error("{path}: {message}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        message: String,
    },
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        let message = error.message().trim().replace('\n', "; ");
        ConfigError::Malformed {
            path: path.to_owned(),
            line,
            message,
        }
    })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Makes a path of a file's text relative to the directory of that file.
fn anchor(path: &mut PathBuf, file: &Path) {
    if path.is_relative() {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        *path = file.parent().unwrap_or(Path::new("/")).join(&*path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_beside_a_file_in_the_current_directory_becomes_absolute() {
        let mut path = PathBuf::from("vmlinuz");
        anchor(&mut path, Path::new("vm1.toml"));
        assert_eq!(path, std::env::current_dir().unwrap().join("vmlinuz"));
    }
}

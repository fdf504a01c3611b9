//! Network devices of VMs on this host, made and removed with `ip`.
//!
//! Everything happens in the network namespace the daemon was started in. Creating what exists
//! and deleting what does not are no errors, so that an interrupted start or stop can be repeated.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use super::instance::InstanceId;

/// `ip` talks to the kernel only; longer than this, something is very wrong.
const LIMIT: Duration = Duration::from_secs(20);

/// Name of a tap, unique to one device of one instance. The kernel allows 15 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TapName(String);

impl TapName {
    /// That of an instance's network device.
    pub fn of_net(instance: InstanceId, index: usize) -> Self {
        Self(format!("sv{instance}n{index}"))
    }

    /// That of an instance's emulated HCA.
    pub fn of_hca(instance: InstanceId) -> Self {
        Self(format!("sv{instance}h"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a tap is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// `ip` said no.
    #[error("{action} tap {tap}: {message}")]
    Refused {
        /// For example `create`.
        action: &'static str,
        /// Which.
        tap: TapName,
        /// What `ip` said.
        message: String,
    },
    /// `ip` could not be run, or did not end.
    #[error("{action} tap {tap}: run `ip`")]
    Run {
        /// For example `create`.
        action: &'static str,
        /// Which.
        tap: TapName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes a tap on a bridge, and up. If the bridge refuses it, it is removed again.
///
/// # Errors
/// [`TapError`].
pub async fn create(tap: &TapName, bridge: &str) -> Result<(), TapError> {
    if !exists(tap).await? {
        ip(
            "create",
            tap,
            &["tuntap", "add", "dev", tap.as_str(), "mode", "tap"],
        )
        .await?;
    }
    let attach = ["link", "set", "dev", tap.as_str(), "master", bridge, "up"];
    if let Err(error) = ip("attach", tap, &attach).await {
        if let Err(leftover) = delete(tap).await {
            tracing::warn!(%tap, error = %leftover, "a tap is left behind");
        }
        return Err(error);
    }
    Ok(())
}

/// Removes a tap, if it is there.
///
/// # Errors
/// [`TapError`]; the tap is still there.
pub async fn delete(tap: &TapName) -> Result<(), TapError> {
    match ip("delete", tap, &["link", "delete", "dev", tap.as_str()]).await {
        Err(TapError::Refused { .. }) if !exists(tap).await? => Ok(()),
        outcome => outcome,
    }
}

/// Whether it is there.
///
/// # Errors
/// [`TapError::Run`].
pub async fn exists(tap: &TapName) -> Result<bool, TapError> {
    // Not by /sys, which may show the devices of another namespace.
    match ip("look for", tap, &["link", "show", "dev", tap.as_str()]).await {
        Ok(()) => Ok(true),
        Err(TapError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn ip(action: &'static str, tap: &TapName, arguments: &[&str]) -> Result<(), TapError> {
    let run = |source| TapError::Run {
        action,
        tap: tap.clone(),
        source,
    };
    let mut command = Command::new("ip");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(LIMIT, command.output())
        .await
        .map_err(|_| run(std::io::ErrorKind::TimedOut.into()))?
        .map_err(run)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(TapError::Refused {
        action,
        tap: tap.clone(),
        message,
    })
}

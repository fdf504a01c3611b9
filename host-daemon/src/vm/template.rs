//! Templates: the state of a VM in a mapped-ram file, from which it starts without booting.
//!
//! A template belongs to one VM (addresses, host name) and to the disks as they were when it was
//! saved. It holds no HCA: a VM with one cannot be saved.

use std::path::Path;
use std::time::Duration;

use symvirt_qmp::migration::{Endpoint, Incoming, MigrateError, Outgoing, Settings};
use symvirt_qmp::{Client, commands};

/// Longest time for writing or reading the memory of a large VM.
const LIMIT: Duration = Duration::from_secs(600);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a template was not saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The VM could not be stopped or continued.
    #[error("{action} the VM for its template")]
    Machine {
        /// `stop` or `continue`.
        action: &'static str,
        /// Why.
        #[source]
        source: symvirt_qmp::Error,
    },
    /// The state could not be written.
    #[error("save template")]
    Save(#[source] MigrateError),
    /// The state could not be read.
    #[error("restore template")]
    Load(#[source] MigrateError),
}

/// Stops the VM and saves its state to `file`. It stays stopped, so that its disks stay as the
/// template expects them.
///
/// # Errors
/// [`TemplateError`]; the VM runs on, unless it cannot be told to.
pub async fn save(client: &Client, file: &Path) -> Result<(), TemplateError> {
    let machine = |action| move |source| TemplateError::Machine { action, source };
    client
        .execute(commands::stop {})
        .await
        .map_err(machine("stop"))?;
    let to = Endpoint::File(file.to_owned());
    let saved = async {
        let saving = Outgoing::start(client, &to, &Settings::file(), LOOK_EVERY).await?;
        saving.finish(LIMIT).await
    };
    match saved.await {
        Ok(_) => Ok(()),
        Err(error) => {
            client
                .execute(commands::cont {})
                .await
                .map_err(machine("continue"))?;
            Err(TemplateError::Save(error))
        }
    }
}

/// Reads the state of `file` into a QEMU that waits. The VM stays stopped.
///
/// # Errors
/// [`TemplateError::Load`]; the QEMU is of no further use.
pub(super) async fn load(client: &Client, file: &Path) -> Result<(), TemplateError> {
    let from = Endpoint::File(file.to_owned());
    let loaded = async {
        let mut incoming = Incoming::listen(client, &from, &Settings::file()).await?;
        incoming.finish(LIMIT).await
    };
    loaded.await.map_err(TemplateError::Load)
}

//! TLS of the streams between QEMUs, with the certificates of their daemons.
//!
//! QEMU reads fixed names in a directory (`docs/system/tls.rst`): links to the configured files are
//! made in that of the instance, anew for each migration, so that replaced certificates are used
//! from the next one on. The source checks that the certificate names the destination's host, the
//! destination that its subject's common name is a configured peer's, and that it is not a user's.
//!
//! ```text
//!   STATE_DIR/vms/vm1.0badcafe/tls/  ca-cert.pem  server-cert.pem  server-key.pem
//!                                                 client-cert.pem  client-key.pem
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use symvirt_qmp::migration::Settings;
use symvirt_qmp::{Client, objects};

use crate::config::{HostName, PeerConfig, Role, TlsFiles};

const ID: &str = "symvirt-tls";
/// QEMU's list of who may connect.
const PEERS: &str = "symvirt-peers";

/// Why a QEMU was not given credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The links to the certificates.
    #[error("link certificates into {directory}", directory = directory.display())]
    Links {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU does not take them.
    #[error("give QEMU the certificates in {directory}", directory = directory.display())]
    Object {
        /// Where they are.
        directory: PathBuf,
        /// Why.
        #[source]
        source: symvirt_qmp::Error,
    },
}

/// Which end of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End<'a> {
    /// Of the source, which expects to be answered by a host.
    Client(&'a HostName),
    /// Of the destination, which lets peers in.
    Server(&'a [PeerConfig]),
}

/// Gives a QEMU what it needs to speak TLS at `end` of its next migration, and `settings` the use of
/// it.
///
/// # Errors
/// [`CredentialsError`].
pub async fn install(
    client: &Client,
    instance: &Path,
    files: &TlsFiles,
    end: End<'_>,
    settings: &mut Settings,
) -> Result<(), CredentialsError> {
    let directory = instance.join("tls");
    let endpoint = match end {
        End::Client(_) => "client",
        End::Server(_) => "server",
    };
    link(&directory, endpoint, files).map_err(|source| CredentialsError::Links {
        directory: directory.clone(),
        source,
    })?;
    let mut properties = Map::new();
    properties.insert("qom-type".into(), "tls-creds-x509".into());
    properties.insert("id".into(), ID.into());
    properties.insert("dir".into(), directory.to_string_lossy().into());
    properties.insert("endpoint".into(), endpoint.into());
    properties.insert("verify-peer".into(), true.into());
    let failed = |source| CredentialsError::Object {
        directory: directory.clone(),
        source,
    };
    let replaced = objects::replace(client, ID, Value::Object(properties)).await;
    replaced.map_err(failed)?;
    let parameters = &mut settings.parameters;
    parameters.insert("tls-creds".into(), ID.into());
    match end {
        End::Client(host) => {
            parameters.insert("tls-hostname".into(), host.as_str().into());
        }
        End::Server(peers) => {
            let replaced = objects::replace(client, PEERS, allowed(peers)).await;
            replaced.map_err(failed)?;
            parameters.insert("tls-authz".into(), PEERS.into());
        }
    }
    Ok(())
}

/// Who may send a VM: whose subject has a peer's name as its common name, wherever in it, and gives
/// no role. Users choose their names. The first rule that fits decides.
fn allowed(peers: &[PeerConfig]) -> Value {
    let rule = |pattern: String, policy: &str| {
        let format = if pattern.contains('*') {
            "glob"
        } else {
            "exact"
        };
        json!({ "match": pattern, "policy": policy, "format": format })
    };
    let users = Role::ALL.map(|role| rule(format!("*OU={}*", role.unit()), "deny"));
    let peers = peers.iter().flat_map(|peer| {
        let name = format!("CN={}", peer.name);
        [
            name.clone(),
            format!("{name},*"),
            format!("*,{name}"),
            format!("*,{name},*"),
        ]
    });
    let rules = users
        .into_iter()
        .chain(peers.map(|pattern| rule(pattern, "allow")));
    json!({
        "qom-type": "authz-list",
        "id": PEERS,
        "policy": "deny",
        "rules": rules.collect::<Vec<_>>(),
    })
}

fn link(directory: &Path, endpoint: &str, files: &TlsFiles) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    for (target, name) in [
        (&files.ca, "ca-cert.pem".to_owned()),
        (&files.cert, format!("{endpoint}-cert.pem")),
        (&files.key, format!("{endpoint}-key.pem")),
    ] {
        symlink(fs::canonicalize(target)?, directory.join(name))?;
    }
    Ok(())
}

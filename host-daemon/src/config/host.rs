//! The configuration of one host's daemon.
//!
//! ```toml
//! host = "a"
//! state_dir = "/var/lib/symvirt"
//! socket = "/run/symvirt/symvirtd.sock"
//! bridge = "br0"                       # where VMs' network devices are attached
//! listen = "10.0.0.1:7420"             # for other daemons; needs [tls]
//!
//! [tls]
//! ca = "ca.pem"
//! cert = "a.pem"
//! key = "a.key"
//!
//! [[peer]]
//! name = "b"
//! address = "10.0.0.2:7420"
//!
//! [[hca]]
//! name = "hca0"
//! kind = "vfio"
//! pci = "0000:41:00.0"
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ByteSize, ConfigError, HcaName, HostName, anchor, parse, read};

/// Arguments of one QMP command (`object-add`, `netdev_add`, `device_add`).
pub type Arguments = serde_json::Map<String, serde_json::Value>;

/// The configuration of one host's daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Name of this host; its certificate carries it too.
    pub host: HostName,
    /// Sockets, VM states and journals; made with mode 0700 if missing.
    pub state_dir: PathBuf,
    /// The socket that users of this host ask; `symvirtd.sock` in `state_dir` if not given, where
    /// only root gets to. Its folder is made if missing.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Bridge that VMs' network devices are attached to.
    pub bridge: String,
    /// Where other daemons reach this one.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Address of this host for migration streams; that of `listen` if not given.
    #[serde(default)]
    pub migration_address: Option<std::net::IpAddr>,
    /// Memory that VMs may use in all; what the kernel calls available if not given.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// Virtual CPUs that VMs may have in all; as many as they ask for if not given.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// The QEMU program.
    #[serde(default = "default_qemu")]
    pub qemu: PathBuf,
    /// Certificates for the link between daemons.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The other daemons.
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerConfig>,
    /// The HCAs of this host.
    #[serde(default, rename = "hca")]
    pub hcas: Vec<HcaConfig>,
}

fn default_qemu() -> PathBuf {
    "qemu-system-x86_64".into()
}

/// PEM files made by `symvirt pki init`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate of the authority that signs every daemon's certificate.
    pub ca: PathBuf,
    /// This daemon's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Another daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its host name.
    pub name: HostName,
    /// Where it listens.
    pub address: SocketAddr,
}

/// One HCA of the host's pool.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum HcaConfig {
    /// A PCI function passed through.
    Vfio {
        /// Name in the pool.
        name: HcaName,
        /// PCI address on the host, like `0000:41:00.0`.
        pci: String,
    },
    /// Emulated functions. In every string value `{mac}` is replaced by the MAC of the VM's
    /// `[hca]`, `{tap}` by a tap that the daemon makes on `bridge`, `{bus}` by the VM's free PCIe
    /// port. Objects, then netdevs, then devices are added in the order given; the **last** device
    /// is the one that `device_del` names, the others of the slot go with it, and the unplug is
    /// over when every device of the list was reported DEVICE_DELETED. Each table carries an `id`.
    QemuDevices {
        /// Name in the pool.
        name: HcaName,
        /// Bridge of the tap.
        bridge: String,
        /// Arguments of `object-add` (`qom-type`, `id`, …).
        #[serde(default)]
        objects: Vec<Arguments>,
        /// Arguments of `netdev_add` (`type`, `id`, …).
        #[serde(default)]
        netdevs: Vec<Arguments>,
        /// Arguments of `device_add` (`driver`, `id`, `bus`, …).
        devices: Vec<Arguments>,
    },
}

impl HcaConfig {
    /// Name in the pool.
    pub fn name(&self) -> &HcaName {
        match self {
            Self::Vfio { name, .. } | Self::QemuDevices { name, .. } => name,
        }
    }
}

impl HostConfig {
    /// Reads and checks a file. Relative paths are meant from the file's directory.
    ///
    /// # Errors
    /// [`ConfigError`] with the file, the line, and what was expected.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_text(path, &read(path)?)
    }

    /// The same of a text that stands, or would, in the file at `path`.
    ///
    /// # Errors
    /// As [`HostConfig::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = parse(path, text)?;
        config.check().map_err(|message| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        })?;
        anchor(&mut config.state_dir, path);
        if let Some(socket) = &mut config.socket {
            anchor(socket, path);
        }
        if let Some(tls) = &mut config.tls {
            for file in [&mut tls.ca, &mut tls.cert, &mut tls.key] {
                anchor(file, path);
            }
        }
        Ok(config)
    }

    /// Where users of this host ask it.
    pub fn socket(&self) -> PathBuf {
        let own = || self.state_dir.join("symvirtd.sock");
        self.socket.clone().unwrap_or_else(own)
    }

    fn check(&self) -> Result<(), String> {
        if (self.listen.is_some() || !self.peers.is_empty()) && self.tls.is_none() {
            return Err(
                "`listen` and `[[peer]]` need `[tls]` with ca, cert and key \
                        (`symvirt pki init` makes them)"
                    .into(),
            );
        }
        let mut peers = BTreeSet::new();
        for peer in &self.peers {
            if peer.name == self.host {
                return Err(format!(
                    "`[[peer]]` names this host itself, `{}`",
                    peer.name
                ));
            }
            if !peers.insert(&peer.name) {
                return Err(format!("`[[peer]]` `{}` is given twice", peer.name));
            }
        }
        let mut hcas = BTreeSet::new();
        for hca in &self.hcas {
            let name = hca.name();
            if !hcas.insert(name) {
                return Err(format!("`[[hca]]` `{name}` is given twice"));
            }
            if let HcaConfig::QemuDevices {
                objects,
                netdevs,
                devices,
                ..
            } = hca
            {
                if devices.is_empty() {
                    return Err(format!(
                        "`[[hca]]` `{name}` needs at least one of `devices`"
                    ));
                }
                let tables = objects.iter().chain(netdevs).chain(devices);
                if tables
                    .clone()
                    .any(|table| !table.get("id").is_some_and(|id| id.is_string()))
                {
                    return Err(format!("`[[hca]]` `{name}`: every table needs an `id`"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
host = "a"
state_dir = "state"
bridge = "br0"
listen = "10.0.0.1:7420"
[tls]
ca = "ca.pem"
cert = "a.pem"
key = "/etc/a.key"
[[peer]]
name = "b"
address = "10.0.0.2:7420"
[[hca]]
name = "hca0"
kind = "qemu-devices"
bridge = "br1"
objects = [{ qom-type = "memory-backend-ram", id = "hm", size = 1048576, share = true }]
netdevs = [{ type = "tap", id = "ni", ifname = "{tap}" }]
devices = [
  { driver = "ivshmem-plain", id = "hcablk", bus = "{bus}", addr = "0.1", memdev = "hm" },
  { driver = "e1000e", id = "hca", bus = "{bus}", addr = "0.0", multifunction = true },
]
[[hca]]
name = "hca1"
kind = "vfio"
pci = "0000:41:00.0"
"#;

    fn refused(text: &str) -> String {
        HostConfig::from_text(Path::new("/etc/a.toml"), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_full_file_is_read_and_relative_paths_are_anchored() {
        let config = HostConfig::from_text(Path::new("/etc/a.toml"), GOOD).unwrap();
        assert_eq!(config.state_dir, Path::new("/etc/state"));
        assert_eq!(config.tls.unwrap().ca, Path::new("/etc/ca.pem"));
        assert_eq!(config.hcas.len(), 2);
    }

    #[test]
    fn a_misspelt_key_is_refused_with_file_line_and_what_was_expected() {
        let message = refused(&GOOD.replace("bridge = \"br0\"", "brigde = \"br0\""));
        assert!(
            message.starts_with("/etc/a.toml, line 4: unknown field `brigde`"),
            "{message}"
        );
        assert!(message.contains("expected one of `host`"), "{message}");
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line() {
        let message = refused(&GOOD.replace("state_dir = \"state\"", "state_dir = 7"));
        assert!(message.starts_with("/etc/a.toml, line 3: "), "{message}");
        assert!(message.contains("expected"), "{message}");
    }

    #[test]
    fn text_that_is_not_toml_is_refused_with_its_line() {
        let message = refused(&GOOD.replace("[tls]", "[tls"));
        assert!(message.starts_with("/etc/a.toml, line 6: "), "{message}");
    }

    #[test]
    fn a_peer_without_certificates_is_refused() {
        let message = refused("host='a'\nstate_dir='/s'\nbridge='b'\nlisten='10.0.0.1:7420'\n");
        assert!(message.contains("symvirt pki init"), "{message}");
    }
}

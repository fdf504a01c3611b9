//! The file of a host's daemon.

use std::collections::BTreeSet;
use std::path::Path;

use symvirt_host::config::{HcaConfig, HostConfig};

use crate::vm_spec::names_a_line;

/// A file.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let config = match HostConfig::from_text(Path::new("/etc/symvirt/host.toml"), text) {
        Ok(config) => config,
        Err(error) => return names_a_line(&error, text),
    };
    assert!(config.state_dir.is_absolute());
    assert!(config.tls.is_some() || (config.listen.is_none() && config.peers.is_empty()));
    let peers: BTreeSet<_> = config.peers.iter().map(|peer| &peer.name).collect();
    assert_eq!(peers.len(), config.peers.len());
    assert!(!peers.contains(&config.host));
    let hcas: BTreeSet<_> = config.hcas.iter().map(HcaConfig::name).collect();
    assert_eq!(hcas.len(), config.hcas.len());
    let again = serde_json::to_string(&config).expect("plain data");
    let again: HostConfig = serde_json::from_str(&again).expect("as it was written");
    assert_eq!(again, config);
}

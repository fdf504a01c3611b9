//! What an interconnect means in this guest.

use symvirt_protocol::agent::DeviceReport;
use symvirt_protocol::transport::{Interconnect, Transports};

/// Transports that need no HCA.
const FALLBACK_TLS: &str = "tcp,self,sm";
/// A guest without any network: its ranks have only each other.
const NO_NETWORK: &str = "lo";

/// Resolves `interconnect` for the devices that are there now.
pub fn resolve(interconnect: &Interconnect, devices: &DeviceReport) -> Transports {
    match interconnect {
        Interconnect::Native => Transports::default(),
        Interconnect::Explicit(transports) => transports.clone(),
        Interconnect::Fallback => {
            let usable = devices
                .netdevs
                .iter()
                .filter(|netdev| netdev.up && !netdev.hca);
            let names: Vec<&str> = usable.map(|netdev| netdev.name.as_str()).collect();
            let net_devices = if names.is_empty() {
                NO_NETWORK.to_owned()
            } else {
                names.join(",")
            };
            Transports {
                tls: Some(FALLBACK_TLS.to_owned()),
                net_devices: Some(net_devices),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use symvirt_protocol::agent::NetDevice;

    use super::*;

    fn netdev(name: &str, up: bool, hca: bool) -> NetDevice {
        NetDevice {
            name: name.into(),
            pci: None,
            up,
            hca,
            bytes: (0, 0),
        }
    }

    #[test]
    fn fallback_avoids_hcas_and_dead_links() {
        let netdevs = vec![
            netdev("eth0", true, false),
            netdev("eth1", true, true),
            netdev("eth2", false, false),
        ];
        let devices = DeviceReport {
            verbs: Vec::new(),
            netdevs,
        };
        let transports = resolve(&Interconnect::Fallback, &devices);
        assert_eq!(transports.net_devices.as_deref(), Some("eth0"));
        assert_eq!(transports.tls.as_deref(), Some("tcp,self,sm"));
    }

    #[test]
    fn fallback_without_a_network_stays_inside_the_guest() {
        let transports = resolve(&Interconnect::Fallback, &DeviceReport::default());
        assert_eq!(transports.net_devices.as_deref(), Some("lo"));
    }

    #[test]
    fn native_keeps_the_jobs_own_choice() {
        let transports = resolve(&Interconnect::Native, &DeviceReport::default());
        assert_eq!(transports, Transports::default());
    }
}

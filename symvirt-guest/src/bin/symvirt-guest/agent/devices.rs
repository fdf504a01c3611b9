//! The guest's interconnect devices, read from sysfs and /proc.
//!
//! Everything may vanish while it is read (that is what the report is for): what cannot be read
//! is left out, never an error. The verbs library is not asked: opening a device would make the
//! agent its holder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use symvirt_protocol::agent::{DeviceReport, Holder, NetDevice, VerbsDevice, VerbsPort};

/// Where the kernel shows its devices; another place in tests.
#[derive(Clone, Debug)]
pub struct Devices {
    root: PathBuf,
}

impl Devices {
    /// Of the system whose `/sys` and `/proc` are below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Devices { root: root.into() }
    }

    /// The report as of now; `ranks` are the pids of processes that the library controls.
    pub fn report(&self, ranks: &BTreeSet<u32>) -> DeviceReport {
        let mut report = self.without_holders();
        if !report.verbs.is_empty() {
            let mut holders = self.holders(ranks);
            for device in &mut report.verbs {
                device.holders = holders.remove(&device.name).unwrap_or_default();
            }
        }
        report
    }

    /// The report without the search of all processes.
    pub fn without_holders(&self) -> DeviceReport {
        let counters = self.netdev_bytes();
        let verbs: Vec<VerbsDevice> = list(&self.root.join("sys/class/infiniband"))
            .into_iter()
            .map(|name| self.verbs_device(name, &counters))
            .collect();
        let hcas: BTreeSet<&String> = verbs
            .iter()
            .filter_map(|device| device.netdev.as_ref())
            .collect();
        let net = self.root.join("sys/class/net");
        let netdevs = list(&net)
            .into_iter()
            .filter(|name| name != "lo")
            .map(|name| {
                let directory = net.join(&name);
                NetDevice {
                    pci: pci_address(&directory.join("device")),
                    // Reading `carrier` fails while the interface is down.
                    up: read(&directory.join("carrier")).as_deref() == Some("1"),
                    hca: hcas.contains(&name),
                    bytes: counters.get(&name).copied().unwrap_or_default(),
                    name,
                }
            });
        let netdevs = netdevs.collect();
        DeviceReport { verbs, netdevs }
    }

    fn verbs_device(&self, name: String, counters: &BTreeMap<String, (u64, u64)>) -> VerbsDevice {
        let directory = self.root.join("sys/class/infiniband").join(&name);
        let netdev = netdev_of(&directory);
        let below = netdev
            .as_ref()
            .and_then(|netdev| counters.get(netdev))
            .copied();
        let mut ports: Vec<VerbsPort> = list(&directory.join("ports"))
            .into_iter()
            .filter_map(|number| {
                let port = directory.join("ports").join(&number);
                let state = read(&port.join("state"))?;
                Some(VerbsPort {
                    number: number.parse().ok()?,
                    active: state.ends_with("ACTIVE"),
                    state,
                    gids: gids(&port),
                    // A soft device has no counters of its own: its bytes are its netdev's.
                    bytes: port_bytes(&port).or(below),
                })
            })
            .collect();
        ports.sort_by_key(|port| port.number);
        VerbsDevice {
            name,
            ports,
            netdev,
            holders: Vec::new(),
        }
    }

    fn netdev_bytes(&self) -> BTreeMap<String, (u64, u64)> {
        let net = self.root.join("sys/class/net");
        let bytes = |name: &String, direction: &str| {
            number(&net.join(name).join("statistics").join(direction)).unwrap_or(0)
        };
        list(&net)
            .into_iter()
            .map(|name| {
                let both = (bytes(&name, "rx_bytes"), bytes(&name, "tx_bytes"));
                (name, both)
            })
            .collect()
    }

    /// Processes with an open uverbs descriptor, by verbs device.
    fn holders(&self, ranks: &BTreeSet<u32>) -> BTreeMap<String, Vec<Holder>> {
        let verbs = self.root.join("sys/class/infiniband_verbs");
        let mut holders: BTreeMap<String, Vec<Holder>> = BTreeMap::new();
        let proc = self.root.join("proc");
        for pid in list(&proc)
            .iter()
            .filter_map(|name| name.parse::<u32>().ok())
        {
            let directory = proc.join(pid.to_string());
            let nodes: BTreeSet<PathBuf> = list(&directory.join("fd"))
                .iter()
                .filter_map(|fd| fs::read_link(directory.join("fd").join(fd)).ok())
                .filter(|target| target.starts_with("/dev/infiniband"))
                .collect();
            for node in nodes {
                let Some(node) = node.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                let Some(device) = read(&verbs.join(node).join("ibdev")) else {
                    continue;
                };
                let program = read(&directory.join("comm")).unwrap_or_default();
                let rank = ranks.contains(&pid);
                holders
                    .entry(device)
                    .or_default()
                    .push(Holder { pid, program, rank });
            }
        }
        holders
    }
}

/// What a change of the report is told by: neither counters, which change all the time, nor
/// holders, who are looked for only when somebody asks.
pub fn structure(report: &DeviceReport) -> DeviceReport {
    let mut report = report.clone();
    for device in &mut report.verbs {
        device.holders.clear();
        for port in &mut device.ports {
            port.bytes = None;
        }
    }
    for netdev in &mut report.netdevs {
        netdev.bytes = (0, 0);
    }
    report
}

/// A soft device names the netdev it was made on, a real one has it as a sibling.
fn netdev_of(directory: &Path) -> Option<String> {
    read(&directory.join("parent"))
        .or_else(|| list(&directory.join("device/net")).into_iter().next())
        .or_else(|| read(&directory.join("ports/1/gid_attrs/ndevs/0")))
        .filter(|name| !name.is_empty())
}

/// Soft devices have tables of a thousand entries, nearly all of them empty; reading them all took
/// an emulated guest longer than everything else in the report.
const EMPTY_GIDS: usize = 32;

fn gids(port: &Path) -> Vec<String> {
    let mut gids = Vec::new();
    let mut empty = 0;
    for index in 0_u32.. {
        let Some(gid) = read(&port.join("gids").join(index.to_string())) else {
            break;
        };
        if gid.chars().all(|digit| matches!(digit, '0' | ':')) {
            empty += 1;
            if empty == EMPTY_GIDS {
                break;
            }
        } else {
            empty = 0;
            gids.push(gid);
        }
    }
    gids
}

/// The data counters count words of four bytes (InfiniBand specification, PortCounters).
fn port_bytes(port: &Path) -> Option<(u64, u64)> {
    let words = |name: &str| number(&port.join("counters").join(name));
    Some((
        words("port_rcv_data")?.wrapping_mul(4),
        words("port_xmit_data")?.wrapping_mul(4),
    ))
}

/// The PCI function a device belongs to; a virtio device is a child of one.
fn pci_address(device: &Path) -> Option<String> {
    let path = fs::canonicalize(device).ok()?;
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    parts
        .into_iter()
        .rev()
        .find(|part| is_pci_address(part))
        .map(str::to_owned)
}

fn is_pci_address(name: &str) -> bool {
    let fields: Vec<&str> = name.split([':', '.']).collect();
    let hex = |field: &str| field.chars().all(|digit| digit.is_ascii_hexdigit());
    name.len() >= 12
        && matches!(&fields[..], [domain, bus, device, function]
            if domain.len() >= 4 && bus.len() == 2 && device.len() == 2 && function.len() == 1)
        && fields.iter().all(|field| hex(field))
}

fn list(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn number(file: &Path) -> Option<u64> {
    read(file)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().expect("below root")).expect("mkdir");
        fs::write(file, text).expect("write");
    }

    /// A guest with a virtio NIC and a soft-RoCE device on a second NIC, held by two processes.
    fn guest() -> tempfile::TempDir {
        let guest = tempfile::tempdir().expect("tempdir");
        let root = guest.path();
        let ib = "sys/class/infiniband/rxe0";
        put(root, &format!("{ib}/parent"), "eth1\n");
        put(root, &format!("{ib}/ports/1/state"), "4: ACTIVE\n");
        put(
            root,
            &format!("{ib}/ports/1/gids/0"),
            "fe80:0000:0000:0000:5054:00ff:fe12:3456\n",
        );
        put(
            root,
            &format!("{ib}/ports/1/gids/1"),
            "0000:0000:0000:0000:0000:0000:0000:0000\n",
        );
        put(root, "sys/class/infiniband_verbs/uverbs0/ibdev", "rxe0\n");
        put(root, "sys/class/net/lo/carrier", "1\n");
        put(root, "sys/class/net/eth0/carrier", "1\n");
        put(root, "sys/class/net/eth0/statistics/rx_bytes", "10\n");
        put(root, "sys/class/net/eth0/statistics/tx_bytes", "20\n");
        put(root, "sys/class/net/eth1/carrier", "1\n");
        put(root, "sys/class/net/eth1/statistics/rx_bytes", "30\n");
        put(root, "sys/class/net/eth1/statistics/tx_bytes", "40\n");
        put(root, "sys/devices/pci0000:00/0000:00:02.0/virtio0/id", "");
        let device = root.join("sys/devices/pci0000:00/0000:00:02.0/virtio0");
        symlink(device, root.join("sys/class/net/eth0/device")).expect("symlink");
        for (pid, program) in [("77", "hpcc\n"), ("78", "ibv_asyncwatch\n")] {
            put(root, &format!("proc/{pid}/comm"), program);
            fs::create_dir_all(root.join(format!("proc/{pid}/fd"))).expect("mkdir");
            for fd in ["5", "6"] {
                let fd = root.join(format!("proc/{pid}/fd/{fd}"));
                symlink("/dev/infiniband/uverbs0", fd).expect("symlink");
            }
        }
        guest
    }

    #[test]
    fn a_soft_roce_guest_is_reported_as_the_kernel_shows_it() {
        let guest = guest();
        let report = Devices::below(guest.path()).report(&BTreeSet::from([77]));
        let [rxe] = &report.verbs[..] else {
            panic!("{report:?}")
        };
        assert_eq!(
            (rxe.name.as_str(), rxe.netdev.as_deref()),
            ("rxe0", Some("eth1"))
        );
        let [port] = &rxe.ports[..] else {
            panic!("{rxe:?}")
        };
        assert!(port.active);
        assert_eq!(port.gids, ["fe80:0000:0000:0000:5054:00ff:fe12:3456"]);
        assert_eq!(port.bytes, Some((30, 40)));
        let names: Vec<(&str, bool)> = report
            .netdevs
            .iter()
            .map(|netdev| (netdev.name.as_str(), netdev.hca))
            .collect();
        assert_eq!(names, [("eth0", false), ("eth1", true)]);
        assert_eq!(report.netdevs[0].pci.as_deref(), Some("0000:00:02.0"));
    }

    #[test]
    fn every_holder_is_named_once_and_foreign_ones_are_told_from_ranks() {
        let guest = guest();
        let report = Devices::below(guest.path()).report(&BTreeSet::from([77]));
        let holders: Vec<(u32, &str, bool)> = report.verbs[0]
            .holders
            .iter()
            .map(|holder| (holder.pid, holder.program.as_str(), holder.rank))
            .collect();
        assert_eq!(holders, [(77, "hpcc", true), (78, "ibv_asyncwatch", false)]);
    }

    #[test]
    fn gids_behind_a_small_hole_are_seen() {
        let guest = guest();
        let gids = "sys/class/infiniband/rxe0/ports/1/gids";
        put(
            guest.path(),
            &format!("{gids}/2"),
            "0000:0000:0000:0000:0000:ffff:0a00:0001\n",
        );
        let report = Devices::below(guest.path()).without_holders();
        assert_eq!(report.verbs[0].ports[0].gids.len(), 2);
    }

    #[test]
    fn a_guest_without_devices_has_an_empty_report() {
        let nothing = tempfile::tempdir().expect("tempdir");
        let report = Devices::below(nothing.path()).report(&BTreeSet::new());
        assert_eq!(report, DeviceReport::default());
    }

    #[test]
    fn counters_and_holders_alone_are_no_change() {
        let guest = guest();
        let devices = Devices::below(guest.path());
        let before = devices.report(&BTreeSet::new());
        put(
            guest.path(),
            "sys/class/net/eth1/statistics/rx_bytes",
            "31\n",
        );
        let after = devices.report(&BTreeSet::new());
        assert_ne!(before, after);
        assert_eq!(structure(&before), structure(&after));
    }
}

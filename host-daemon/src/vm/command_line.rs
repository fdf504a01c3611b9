//! QEMU's command line, a pure function of the specification and the instance.
//!
//! Everything the guest can see has a fixed id and PCI address, so that the source and the
//! destination of a migration, made from the same specification on different hosts, are the same
//! machine:
//!
//! | address on pcie.0 | device |
//! |---|---|
//! | 02.0 | balloon, if the VM has one |
//! | 03.0 | virtio-serial, port 1 is the guest channel |
//! | 04.0 – 07.0 | disks |
//! | 08.0 – 0f.0 | network devices |
//! | 10.0 – 12.0 | `rp0` to `rp2`, ports for hot-plugging |
//!
//! The HCA is never on the command line. QEMU always starts stopped: a VM runs when it is told to
//! over the monitor, after its process has been recorded.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::instance::Files;
use super::tap::TapName;
use crate::config::VmSpec;

/// Id of the guest channel's port, as VSERPORT_CHANGE names it.
pub const CHANNEL_PORT_ID: &str = "symvirt0";

/// Name of the guest channel inside the guest.
pub const CHANNEL_NAME: &str = "org.symvirt.guest.0";

/// The port an HCA is plugged into.
pub const HCA_BUS: &str = "rp0";

const FIRST_DISK: usize = 0x04;
const FIRST_NET: usize = 0x08;
const FIRST_PORT: usize = 0x10;
const PORTS: usize = 3;

/// Whether QEMU waits for a migration stream, from a socket or a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// It has its state from the beginning.
    Fresh,
    /// It waits for `migrate-incoming`.
    Waiting,
}

/// Why there is no command line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandLineError {
    /// More devices than the machine has places for.
    #[error("{count} {what} given, expected at most {most}")]
    TooMany {
        /// Which devices.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A path that is not text cannot be written into QEMU's options.
    #[error("path {path} is not valid UTF-8", path = path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
}

/// The arguments, without the program. `taps` are those of the specification's network devices,
/// in order.
///
/// # Errors
/// [`CommandLineError`].
pub fn arguments(
    spec: &VmSpec,
    files: &Files,
    taps: &[TapName],
    start: Start,
) -> Result<Vec<String>, CommandLineError> {
    let mut line = CommandLine(Vec::new());
    line.option("-name", format!("guest={},debug-threads=on", spec.name));
    line.option("-machine", &spec.machine);
    line.option("-accel", &spec.accel);
    line.option("-cpu", &spec.cpu);
    line.option("-smp", spec.vcpus.to_string());
    line.option("-m", format!("size={}k", spec.memory.0 >> 10));
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.option("-display", "none");
    // Without it an unplug goes by PCIe attention button, which takes the guest 5 s and more.
    line.option(
        "-global",
        "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on",
    );
    line.flag("-S");

    if let Some(kernel) = &spec.kernel {
        line.option("-kernel", text(kernel)?);
    }
    if let Some(initrd) = &spec.initrd {
        line.option("-initrd", text(initrd)?);
    }
    if !spec.append.is_empty() {
        line.option("-append", &spec.append);
    }
    line.channels(files)?;
    if spec.balloon {
        line.balloon();
    }
    line.disks(spec)?;
    line.nets(spec, taps)?;
    for port in 0..PORTS {
        let (number, address) = (port + 1, FIRST_PORT + port);
        line.option(
            "-device",
            format!(
                "pcie-root-port,id=rp{port},bus=pcie.0,addr={address:#04x},chassis={number},slot={number}"
            ),
        );
    }
    if start == Start::Waiting {
        line.option("-incoming", "defer");
    }
    Ok(line.0)
}

struct CommandLine(Vec<String>);

impl CommandLine {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    /// Monitor, console and guest channel.
    fn channels(&mut self, files: &Files) -> Result<(), CommandLineError> {
        let monitor = in_list(&files.monitor())?;
        self.option(
            "-chardev",
            format!("socket,id=monitor,path={monitor},server=on,wait=off"),
        );
        self.option("-mon", "chardev=monitor,mode=control");
        self.option("-pidfile", text(&files.pid_file())?);
        let console = in_list(&files.console())?;
        self.option(
            "-chardev",
            format!("file,id=console,path={console},append=on"),
        );
        self.option("-serial", "chardev:console");
        let channel = in_list(&files.channel())?;
        self.option(
            "-chardev",
            format!("socket,id=channel,path={channel},server=on,wait=off"),
        );
        self.option(
            "-device",
            "virtio-serial-pci,id=serial,bus=pcie.0,addr=0x03",
        );
        self.option(
            "-device",
            format!(
                "virtserialport,id={CHANNEL_PORT_ID},bus=serial.0,nr=1,chardev=channel,name={CHANNEL_NAME}"
            ),
        );
        Ok(())
    }

    /// Free pages: hinted when a migration begins, by a thread of its own; reported all the time, so
    /// that the host has them back (not while an HCA is plugged, whose memory is pinned).
    fn balloon(&mut self) {
        self.option("-object", "iothread,id=balloon-thread");
        self.option(
            "-device",
            "virtio-balloon-pci,id=balloon,bus=pcie.0,addr=0x02,free-page-hint=on,\
             free-page-reporting=on,iothread=balloon-thread",
        );
    }

    fn disks(&mut self, spec: &VmSpec) -> Result<(), CommandLineError> {
        at_most("disks", spec.disks.len(), FIRST_NET - FIRST_DISK)?;
        for (index, disk) in spec.disks.iter().enumerate() {
            let boot = match (index, &spec.kernel) {
                (0, None) => ",bootindex=0",
                _ => "",
            };
            // Past the host's page cache if it is written: the next to read it may be another
            // host. What nobody writes is better shared by all VMs of this one.
            let cache = json!({ "direct": !disk.read_only });
            let image = json!({
                "driver": disk.format.as_str(),
                "node-name": format!("image{index}"),
                "read-only": disk.read_only,
                "cache": cache,
                "file": { "driver": "file", "filename": text(&disk.path)?, "cache": cache },
            });
            self.option("-blockdev", image.to_string());
            let address = FIRST_DISK + index;
            self.option(
                "-device",
                format!(
                    "virtio-blk-pci,id=disk{index},drive=image{index},bus=pcie.0,addr={address:#04x}{boot}"
                ),
            );
        }
        Ok(())
    }

    fn nets(&mut self, spec: &VmSpec, taps: &[TapName]) -> Result<(), CommandLineError> {
        at_most("network devices", spec.nets.len(), FIRST_PORT - FIRST_NET)?;
        for (index, (net, tap)) in spec.nets.iter().zip(taps).enumerate() {
            self.option(
                "-netdev",
                format!("tap,id=net{index}-tap,ifname={tap},script=no,downscript=no,vhost=off"),
            );
            let address = FIRST_NET + index;
            // No boot ROM: its size would be one more thing to be equal on both hosts.
            self.option(
                "-device",
                format!(
                    "virtio-net-pci,id=net{index},netdev=net{index}-tap,mac={},bus=pcie.0,addr={address:#04x},romfile=",
                    net.mac
                ),
            );
        }
        Ok(())
    }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), CommandLineError> {
    match count <= most {
        true => Ok(()),
        false => Err(CommandLineError::TooMany { what, count, most }),
    }
}

fn text(path: &Path) -> Result<&str, CommandLineError> {
    path.to_str().ok_or_else(|| CommandLineError::NotText {
        path: path.to_owned(),
    })
}

/// A path as a value within `key=value,key=value`, where a comma is written twice.
fn in_list(path: &Path) -> Result<String, CommandLineError> {
    Ok(text(path)?.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DiskFormat, DiskSpec, NetSpec};

    fn spec() -> VmSpec {
        let text = r#"{"name": "vm1", "gang": "job", "memory": "512MiB", "kernel": "/img/vmlinuz",
            "initrd": "/img/initrd", "append": "root=/dev/vda console=ttyS0",
            "disk": [{"path": "/img/vm1.qcow2", "format": "qcow2"}],
            "net": [{"mac": "52:54:00:00:00:01"}], "hca": {"mac": "52:54:00:00:01:01"}}"#;
        serde_json::from_str(text).unwrap()
    }

    fn line(spec: &VmSpec, start: Start) -> Vec<String> {
        let files = Files::in_directory("/s/vms/vm1.0badcafe".into());
        let taps: Vec<TapName> = (0..spec.nets.len())
            .map(|index| TapName::of_net("0badcafe".parse().unwrap(), index))
            .collect();
        arguments(spec, &files, &taps, start).unwrap()
    }

    const GOLDEN: &str = r#"
-name guest=vm1,debug-threads=on
-machine pc-q35-10.0
-accel tcg,thread=multi
-cpu max
-smp 1
-m size=524288k
-nodefaults
-no-user-config
-display none
-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on
-S
-kernel /img/vmlinuz
-initrd /img/initrd
-append root=/dev/vda console=ttyS0
-chardev socket,id=monitor,path=/s/vms/vm1.0badcafe/monitor,server=on,wait=off
-mon chardev=monitor,mode=control
-pidfile /s/vms/vm1.0badcafe/pid
-chardev file,id=console,path=/s/vms/vm1.0badcafe/console.log,append=on
-serial chardev:console
-chardev socket,id=channel,path=/s/vms/vm1.0badcafe/channel,server=on,wait=off
-device virtio-serial-pci,id=serial,bus=pcie.0,addr=0x03
-device virtserialport,id=symvirt0,bus=serial.0,nr=1,chardev=channel,name=org.symvirt.guest.0
-blockdev {"cache":{"direct":true},"driver":"qcow2","file":{"cache":{"direct":true},"driver":"file","filename":"/img/vm1.qcow2"},"node-name":"image0","read-only":false}
-device virtio-blk-pci,id=disk0,drive=image0,bus=pcie.0,addr=0x04
-netdev tap,id=net0-tap,ifname=sv0badcafen0,script=no,downscript=no,vhost=off
-device virtio-net-pci,id=net0,netdev=net0-tap,mac=52:54:00:00:00:01,bus=pcie.0,addr=0x08,romfile=
-device pcie-root-port,id=rp0,bus=pcie.0,addr=0x10,chassis=1,slot=1
-device pcie-root-port,id=rp1,bus=pcie.0,addr=0x11,chassis=2,slot=2
-device pcie-root-port,id=rp2,bus=pcie.0,addr=0x12,chassis=3,slot=3
"#;

    fn golden(tail: &[&str]) -> Vec<String> {
        let words = GOLDEN.trim().lines().flat_map(|line| line.splitn(2, ' '));
        words
            .chain(tail.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_fresh_vm_has_this_command_line() {
        assert_eq!(line(&spec(), Start::Fresh), golden(&[]));
    }

    #[test]
    fn a_destination_differs_only_in_waiting() {
        assert_eq!(
            line(&spec(), Start::Waiting),
            golden(&["-incoming", "defer"])
        );
    }

    #[test]
    fn the_wish_for_an_hca_changes_nothing() {
        let without = VmSpec {
            hca: None,
            ..spec()
        };
        assert_eq!(line(&without, Start::Fresh), golden(&[]));
    }

    #[test]
    fn a_balloon_has_a_place_of_its_own_and_moves_no_other_device() {
        let with = VmSpec {
            balloon: true,
            ..spec()
        };
        let with = line(&with, Start::Fresh);
        let mut rest = with.clone();
        let at = rest.iter().position(|word| word == "-object").unwrap();
        let balloon: Vec<_> = rest.drain(at..at + 4).collect();
        assert_eq!(rest, golden(&[]));
        assert!(balloon[3].contains("addr=0x02,free-page-hint=on"));
        assert_eq!(
            with.iter()
                .filter(|word| word.contains("addr=0x02"))
                .count(),
            1
        );
    }

    #[test]
    fn commas_in_paths_stay_within_their_option() {
        let files = Files::in_directory("/s/a,b".into());
        let spec = VmSpec {
            nets: Vec::new(),
            ..spec()
        };
        let line = arguments(&spec, &files, &[], Start::Fresh).unwrap();
        assert!(
            line.iter()
                .any(|word| word.contains("path=/s/a,,b/monitor,server"))
        );
    }

    #[test]
    fn more_devices_than_places_are_refused() {
        let disk = DiskSpec {
            path: "/d".into(),
            format: DiskFormat::Raw,
            read_only: true,
        };
        let full = VmSpec {
            disks: vec![disk.clone(); 4],
            ..spec()
        };
        line(&full, Start::Fresh);
        let files = Files::in_directory("/s".into());
        let over = VmSpec {
            disks: vec![disk; 5],
            ..spec()
        };
        assert!(arguments(&over, &files, &[], Start::Fresh).is_err());
        let net = NetSpec {
            mac: spec().nets[0].mac,
        };
        let over = VmSpec {
            nets: vec![net; 9],
            ..spec()
        };
        assert!(arguments(&over, &files, &[], Start::Fresh).is_err());
    }
}

//! The specification of one VM, from which the command lines of its source and its destination
//! QEMU are made.
//!
//! ```toml
//! name = "vm1"
//! gang = "job"
//! memory = "512MiB"
//! kernel = "vmlinuz"                   # without: the firmware boots the first disk
//! initrd = "initrd.img"
//! append = "root=/dev/vda console=ttyS0"
//! template = "vm1.mapped-ram"          # restored instead of booting
//! balloon = true                       # free pages are not copied
//!
//! [[disk]]
//! path = "vm1.qcow2"
//! format = "qcow2"
//!
//! [[net]]
//! mac = "52:54:00:00:00:01"
//!
//! [hca]                                # wants an HCA of its host's pool
//! mac = "52:54:00:00:01:01"
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ByteSize, ConfigError, GangName, MacAddress, VmName, anchor, parse, read};

/// The specification of one VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Name of the VM.
    pub name: VmName,
    /// The gang it belongs to.
    pub gang: GangName,
    /// Versioned machine type, the same on both sides of a migration.
    #[serde(default = "default_machine")]
    pub machine: String,
    /// QEMU's `-accel`.
    #[serde(default = "default_accel")]
    pub accel: String,
    /// QEMU's `-cpu`.
    #[serde(default = "default_cpu")]
    pub cpu: String,
    /// Virtual CPUs.
    #[serde(default = "default_vcpus")]
    pub vcpus: u16,
    /// Memory.
    pub memory: ByteSize,
    /// Kernel image; without one, the firmware boots the first disk.
    #[serde(default)]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    #[serde(default)]
    pub append: String,
    /// A migration stream in a mapped-ram file, restored instead of booting.
    #[serde(default)]
    pub template: Option<PathBuf>,
    /// Disks, in the order of their PCI addresses. Shared by the hosts of a migration.
    #[serde(default, rename = "disk")]
    pub disks: Vec<DiskSpec>,
    /// Network devices, in the order of their PCI addresses.
    #[serde(default, rename = "net")]
    pub nets: Vec<NetSpec>,
    /// A balloon device, by which the guest says which of its pages are free, so that they are not
    /// copied. It is never inflated.
    #[serde(default)]
    pub balloon: bool,
    /// Wants an HCA.
    #[serde(default)]
    pub hca: Option<HcaRequest>,
}

fn default_machine() -> String {
    "pc-q35-10.0".into()
}

fn default_accel() -> String {
    "tcg,thread=multi".into()
}

fn default_cpu() -> String {
    "max".into()
}

fn default_vcpus() -> u16 {
    1
}

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Image file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Whether the guest may not write.
    #[serde(default)]
    pub read_only: bool,
}

/// Format of an image file; never guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// Plain bytes.
    Raw,
    /// QEMU's format, with backing files.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's name of the format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A virtio network device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// Its address.
    pub mac: MacAddress,
}

/// Wish for an HCA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HcaRequest {
    /// Address of the HCA's network device, where it has one.
    pub mac: MacAddress,
}

impl VmSpec {
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
    /// As [`VmSpec::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut spec: Self = parse(path, text)?;
        spec.check().map_err(|message| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        })?;
        let images = [&mut spec.kernel, &mut spec.initrd, &mut spec.template];
        let disks = spec.disks.iter_mut().map(|disk| &mut disk.path);
        for file in images.into_iter().flatten().chain(disks) {
            anchor(file, path);
        }
        Ok(spec)
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.memory < ByteSize::mib(16) {
            return Err(format!(
                "memory is {}, expected at least 16MiB",
                self.memory
            ));
        }
        if self.vcpus == 0 {
            return Err("vcpus is 0, expected at least 1".into());
        }
        if self.kernel.is_none() && (self.initrd.is_some() || !self.append.is_empty()) {
            return Err("initrd and append are for a kernel, and none is given".into());
        }
        if self.kernel.is_none() && self.disks.is_empty() {
            return Err(
                "neither a kernel nor a [[disk]] is given: there is nothing to boot".into(),
            );
        }
        let mut macs = BTreeSet::new();
        let hca = self.hca.iter().map(|hca| hca.mac);
        for mac in self.nets.iter().map(|net| net.mac).chain(hca) {
            if !macs.insert(mac) {
                return Err(format!("mac {mac} is given twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'vm1'\ngang = 'job'\nmemory = '512MiB'\nkernel = 'vmlinuz'\n";

    #[test]
    fn a_short_file_gets_the_documented_defaults() {
        let spec = VmSpec::from_text(Path::new("/vms/vm1.toml"), GOOD).unwrap();
        assert_eq!(spec.machine, "pc-q35-10.0");
        assert_eq!(spec.kernel.as_deref(), Some(Path::new("/vms/vmlinuz")));
        assert_eq!(spec.memory, ByteSize::mib(512));
        assert!(spec.hca.is_none());
    }

    #[test]
    fn without_a_kernel_there_is_a_disk_to_boot_and_nothing_for_a_kernel() {
        let bare = GOOD.replace("kernel = 'vmlinuz'\n", "");
        let disk = "[[disk]]\npath = 'd'\nformat = 'raw'\n";
        let read = |text: String| VmSpec::from_text(Path::new("vm1.toml"), &text);
        let refused = |text: String| read(text).unwrap_err().to_string();
        assert_eq!(read(format!("{bare}{disk}")).unwrap().kernel, None);
        assert!(refused(bare.clone()).contains("nothing to boot"));
        let append = format!("{bare}append = 'quiet'\n{disk}");
        assert!(refused(append).contains("initrd and append are for a kernel"));
    }

    #[test]
    fn a_missing_key_is_named() {
        let text = GOOD.replace("memory = '512MiB'\n", "");
        let message = VmSpec::from_text(Path::new("vm1.toml"), &text)
            .unwrap_err()
            .to_string();
        assert!(message.contains("missing field `memory`"), "{message}");
    }

    #[test]
    fn a_size_without_unit_is_refused_with_its_line_and_an_example() {
        let text = GOOD.replace("512MiB", "512");
        let message = VmSpec::from_text(Path::new("vm1.toml"), &text)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("vm1.toml, line 3: "), "{message}");
        assert!(message.contains("\"512MiB\""), "{message}");
    }

    #[test]
    fn a_spec_survives_json() {
        let spec = VmSpec::from_text(Path::new("/vms/vm1.toml"), GOOD).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<VmSpec>(&json).unwrap(), spec);
    }
}

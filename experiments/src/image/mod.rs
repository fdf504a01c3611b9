//! The guest image: Debian trixie with the distribution's own kernel, MPI, UCX and verbs.
//!
//! ```text
//!  mirror of this machine ─ debootstrap ─► root ─ our files ─┬─► base.raw   (read-only ext4)
//!                                                            ├─► vmlinuz
//!                                                            └─► initrd.cpio (tmpfs over base)
//!  release build ─ mke2fs ─► payload.raw, mounted at /opt/symvirt
//! ```
//!
//! The base is made once per recipe; what is under test comes on a second small disk, so that a
//! change of code never rebuilds the base. What the image does *not* hold: anything of this
//! project, and any state of a VM (each runs on a tmpfs over the base).

pub mod bootstrap;
mod initrd;
pub mod mirror;
mod payload;
mod rootfs;

use std::path::{Path, PathBuf};

use crate::command::{self, CommandError};
use crate::lab_dir::{Fingerprint, LabDir, LabDirError};

pub use payload::Payload;

/// Debian's name of the guest's release.
pub const SUITE: &str = "trixie";

const PACKAGES: &[&str] = &[
    "busybox-static",
    "hpcc",
    "ibverbs-providers",
    "ibverbs-utils",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libopenmpi40",
    "librdmacm1t64",
    "libucx0",
    "linux-image-amd64",
    "mpich",
    "openmpi-bin",
    "openssh-client",
    "openssh-server",
    "perftest",
    "procps",
    "rdma-core",
    "ucx-utils",
    "udev",
];

/// Our files in the guest: path, mode, content.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/inittab", 0o644, include_str!("../../guest/inittab")),
    ("etc/hosts", 0o644, include_str!("../../guest/hosts")),
    (
        "etc/ssh/sshd_config.d/bed.conf",
        0o644,
        include_str!("../../guest/sshd.conf"),
    ),
    (
        "root/.ssh/config",
        0o600,
        include_str!("../../guest/ssh.conf"),
    ),
    (
        "etc/udev/rules.d/90-symvirt-hca.rules",
        0o644,
        include_str!("../../guest/90-symvirt-hca.rules"),
    ),
    (
        "etc/sysctl.d/90-symvirt.conf",
        0o644,
        include_str!("../../../packaging/guest/90-symvirt.conf"),
    ),
    // Keeps the kernel's name rxe0; the distribution's rules would rename it by PCI address.
    (
        "etc/udev/rules.d/60-rdma-persistent-naming.rules",
        0o644,
        "",
    ),
    (
        "usr/local/sbin/guest-boot",
        0o755,
        include_str!("../../guest/guest-boot"),
    ),
    (
        "usr/local/sbin/guest-agent",
        0o755,
        include_str!("../../guest/guest-agent"),
    ),
    (
        "usr/local/sbin/bed-sample",
        0o755,
        include_str!("../../guest/bed-sample"),
    ),
    (
        "usr/local/sbin/hca-up",
        0o755,
        include_str!("../../guest/hca-up"),
    ),
];

/// Raised when the code here changes what the image holds without changing its inputs.
const RECIPE: &str = "1";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program of the recipe failed.
    #[error("make the guest image")]
    Program(#[from] CommandError),
    /// The lab's directory cannot be used.
    #[error(transparent)]
    LabDir(#[from] LabDirError),
    /// A file of the image cannot be written or read.
    #[error("{what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No Debian mirror is known.
    #[error("no Debian mirror: /etc/apt has no source for bookworm or trixie")]
    NoMirror,
    /// The base system lacks something that the recipe counts on.
    #[error("the base system has no {0}")]
    Missing(&'static str),
}

/// Makes an I/O error an [`ImageError::File`].
fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File { what, path, source }
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
    key: String,
}

impl Image {
    /// The image of this recipe, made if it is not there (about two minutes). `say` hears what
    /// is being done.
    ///
    /// # Errors
    /// [`ImageError`]; what was begun is removed by the next call.
    pub fn ensure(lab: &LabDir, say: &dyn Fn(&str)) -> Result<Self, ImageError> {
        let _lock = lab.lock()?;
        let key = Self::recipe();
        let images = lab.part("images")?;
        let directory = images.join(&key);
        if !directory.join("complete").exists() {
            say("building the guest image (once, about 2 minutes)");
            remove_others(&images)?;
            let part = images.join("part");
            std::fs::create_dir_all(&part).map_err(file("make", &part))?;
            build(&part, say)?;
            std::fs::write(part.join("complete"), "").map_err(file("write", &part))?;
            std::fs::rename(&part, &directory).map_err(file("rename", &part))?;
            say("guest image ready");
        }
        Ok(Self { directory, key })
    }

    fn recipe() -> String {
        let mut print = Fingerprint::default().with(RECIPE).with(SUITE);
        for package in PACKAGES {
            print = print.with(package);
        }
        for (path, mode, content) in FILES {
            print = print.with(path).with(mode.to_le_bytes()).with(content);
        }
        print.with(initrd::INIT).name()
    }

    /// Name of the recipe it was made by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Root file system, raw, to be attached read-only.
    pub fn base(&self) -> PathBuf {
        self.directory.join("base.raw")
    }

    /// Kernel.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// Initial RAM disk.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd.cpio")
    }

    /// Private key that opens every guest; made with the image, known to this machine only.
    pub fn ssh_key(&self) -> PathBuf {
        self.directory.join("ssh_key")
    }
}

fn remove_others(images: &Path) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(images).map_err(file("list", images))? {
        let path = entry.map_err(file("list", images))?.path();
        std::fs::remove_dir_all(&path).map_err(file("remove", &path))?;
    }
    Ok(())
}

fn build(directory: &Path, say: &dyn Fn(&str)) -> Result<(), ImageError> {
    let root = directory.join("root");
    say("debootstrap");
    rootfs::bootstrap(&root)?;
    say("files, initrd, file system");
    let ssh_key = directory.join("ssh_key");
    command::run(
        "ssh-keygen",
        ["-q", "-t", "ed25519", "-N", "", "-C", "symvirt-bed", "-f"]
            .map(std::ffi::OsStr::new)
            .into_iter()
            .chain([ssh_key.as_os_str()]),
    )?;
    rootfs::configure(&root, &ssh_key)?;
    rootfs::take_kernel(&root, &directory.join("vmlinuz"))?;
    initrd::make(&root, &directory.join("initrd.cpio"))?;
    rootfs::make_file_system(&root, &directory.join("base.raw"))?;
    std::fs::remove_dir_all(&root).map_err(file("remove", &root))
}

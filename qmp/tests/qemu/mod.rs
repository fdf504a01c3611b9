//! A real QEMU without a guest: its firmware finds nothing to boot and idles.

#![allow(dead_code, reason = "each test program uses its part")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use symvirt_qmp::{Client, commands};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Long enough for a busy machine; nothing here waits that long when all is well.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A machine that ends with the test.
pub struct Machine {
    pub qmp: Client,
    pub monitor: PathBuf,
    child: Child,
}

/// A folder for the sockets and files of one test.
pub fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("qmp-test-")
        .tempdir()
        .unwrap()
}

impl Machine {
    /// Starts `name` stopped, with its monitor in `folder`.
    pub async fn start(folder: &TempDir, name: &str, arguments: &[&str]) -> Machine {
        let monitor = folder.path().join(name).with_extension("qmp");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35", "-accel", "tcg", "-m", "128", "-S"])
            .args(["-nodefaults", "-display", "none"])
            .args([
                "-global",
                "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on",
            ])
            .args(["-device", "pcie-root-port,id=rp0,chassis=1,slot=1"])
            .args(["-device", "qemu-xhci,id=usb"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .expect("qemu-system-x86_64 is needed for this test");
        let qmp = Client::connect(&monitor, LIMIT).await.unwrap();
        Machine {
            qmp,
            monitor,
            child,
        }
    }

    /// Starts a machine that waits for a migration.
    pub async fn waiting(folder: &TempDir, name: &str, arguments: &[&str]) -> Machine {
        let arguments: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(["-incoming", "defer"])
            .collect();
        Machine::start(folder, name, &arguments).await
    }

    pub async fn status(&self) -> commands::RunState {
        self.qmp
            .execute(commands::query_status {})
            .await
            .unwrap()
            .status
    }

    pub async fn run(&self) {
        self.qmp.execute(commands::cont {}).await.unwrap();
    }

    /// Drops the connection; the machine ends with what is returned.
    pub fn disconnect(self) -> Child {
        self.child
    }

    /// Ends QEMU by its own process id, without warning.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Something in memory that is not zero, so that its pages have to be sent.
pub struct Content {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Content {
    const ADDRESS: u64 = 32 << 20;

    pub fn new(folder: &TempDir, size: usize) -> Content {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(size)
        .collect();
        Content::of(folder, bytes)
    }

    /// The same few bytes over and over, which compress well.
    pub fn dull(folder: &TempDir, size: usize) -> Content {
        Content::of(folder, b"dull".repeat(size / 4))
    }

    fn of(folder: &TempDir, bytes: Vec<u8>) -> Content {
        let file = folder.path().join("content");
        std::fs::write(&file, &bytes).unwrap();
        Content { file, bytes }
    }

    /// The arguments that load it; both sides need them, as both need the same ROMs.
    pub fn arguments(&self) -> [String; 2] {
        let file = self.file.display();
        [
            "-device".into(),
            format!("loader,file={file},addr={:#x},force-raw=on", Self::ADDRESS),
        ]
    }

    pub async fn assert_in(&self, machine: &Machine, folder: &Path) {
        let seen = folder.join("seen");
        let save = commands::pmemsave {
            val: Self::ADDRESS,
            size: self.bytes.len() as u64,
            filename: seen.display().to_string(),
        };
        machine.qmp.execute(save).await.unwrap();
        assert!(
            std::fs::read(&seen).unwrap() == self.bytes,
            "the memory has another content"
        );
    }
}

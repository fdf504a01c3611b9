//! A real QEMU without a guest: its firmware finds nothing to boot and idles, or boots a sector
//! that writes.

#![allow(dead_code, reason = "each test program uses its part")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use symvirt_qmp::migration::{Endpoint, Incoming, Outgoing, Settings};
use symvirt_qmp::{Client, commands};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Long enough for a busy machine; nothing here waits that long when all is well.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How often a migration is asked how far it is.
pub const OFTEN: Duration = Duration::from_millis(20);

/// Slow enough never to end by itself.
pub fn crawling() -> Settings {
    Settings {
        max_bandwidth: Some(4096),
        ..Settings::live()
    }
}

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

    /// A part of its memory; `folder` takes the file that it goes through.
    pub async fn memory(&self, address: u64, size: u64, folder: &Path) -> Vec<u8> {
        let seen = folder.join("seen");
        let save = commands::pmemsave {
            val: address,
            size,
            filename: seen.display().to_string(),
        };
        self.qmp.execute(save).await.unwrap();
        std::fs::read(&seen).unwrap()
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

/// Where the machines of one test meet.
pub fn stream(folder: &TempDir) -> Endpoint {
    Endpoint::Unix(folder.path().join("stream"))
}

/// Begins to move the first machine into the second, which waits; each side by its settings.
pub async fn migrating(
    folder: &TempDir,
    [source, target]: [&Machine; 2],
    here: &Settings,
    there: &Settings,
) -> (Incoming, Outgoing) {
    let endpoint = stream(folder);
    let incoming = Incoming::listen(&target.qmp, &endpoint, there).await;
    let outgoing = Outgoing::start(&source.qmp, &endpoint, here, OFTEN).await;
    (incoming.unwrap(), outgoing.unwrap())
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
        let size = self.bytes.len() as u64;
        assert!(
            machine.memory(Self::ADDRESS, size, folder).await == self.bytes,
            "the memory has another content"
        );
    }
}

/// A guest of one sector: it adds to a counter in each of 16 pages, round and round, and does
/// nothing else.
pub struct Writer {
    disk: PathBuf,
}

impl Writer {
    /// Where it writes.
    const ADDRESS: u64 = 0x10000;
    const SIZE: u64 = 0x10000;
    /// For a CPU in real mode, at 0x7c00.
    const PROGRAM: [u8; 22] = [
        0xfa, //                   cli
        0xbb, 0x00, 0x10, // round: mov bx, 0x1000
        0x8e, 0xdb, //       page:  mov ds, bx
        0xff, 0x06, 0x00, 0x00, //  inc word [0]
        0x81, 0xc3, 0x00, 0x01, //  add bx, 0x100
        0x81, 0xfb, 0x00, 0x20, //  cmp bx, 0x2000
        0x75, 0xf0, //              jne page
        0xeb, 0xeb, //              jmp round
    ];

    pub fn new(folder: &TempDir) -> Writer {
        let disk = folder.path().join("writer");
        // The firmware boots nothing from a disk of a single sector.
        let mut content = vec![0; 1 << 20];
        content[..Self::PROGRAM.len()].copy_from_slice(&Self::PROGRAM);
        content[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&disk, content).unwrap();
        Writer { disk }
    }

    /// The arguments that boot it; both sides need them.
    pub fn arguments(&self) -> [String; 4] {
        let disk = self.disk.display();
        [
            "-drive".into(),
            format!("if=none,id=writer,format=raw,readonly=on,file={disk}"),
            "-device".into(),
            "virtio-blk-pci,drive=writer,bootindex=0".into(),
        ]
    }

    /// What it has written so far.
    pub async fn written(&self, machine: &Machine, folder: &Path) -> Vec<u8> {
        machine.memory(Self::ADDRESS, Self::SIZE, folder).await
    }

    /// Returns when every page has been written.
    pub async fn begun(&self, machine: &Machine, folder: &Path) {
        for _ in 0..LIMIT.as_millis() / 50 {
            let written = self.written(machine, folder).await;
            if written.chunks(4096).all(|page| page[..2] != [0, 0]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the sector was not booted");
    }
}

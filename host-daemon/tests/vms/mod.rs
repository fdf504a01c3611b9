//! A host of its own for a test: a network namespace, a bridge, a state directory, and a guest
//! that needs no image.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use symvirt_host::config::{HostConfig, VmSpec};
use symvirt_host::vm::{Instance, Vms};
use tempfile::TempDir;

/// Long enough for a busy machine; nothing here waits that long when all is well.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Host of a test.
pub struct Host {
    pub vms: Vms,
    pub folder: TempDir,
}

impl Host {
    pub fn new() -> Host {
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&["link", "set", "br0", "up"]);
        let folder = tempfile::Builder::new()
            .prefix("qmp-vm-")
            .tempdir()
            .unwrap();
        std::fs::write(folder.path().join("kernel"), kernel()).unwrap();
        std::fs::write(folder.path().join("disk"), vec![0u8; 1 << 20]).unwrap();
        let vms = Vms::new(&config(&folder));
        Host { vms, folder }
    }

    /// The same host after a restart of its daemon.
    pub fn restarted(&self) -> Vms {
        Vms::new(&config(&self.folder))
    }

    pub fn spec(&self) -> VmSpec {
        let file = |name: &str| self.folder.path().join(name);
        let spec = serde_json::json!({
            "name": "vm1", "gang": "job", "memory": "32MiB", "kernel": file("kernel"),
            "disk": [{"path": file("disk"), "format": "raw"}],
            "net": [{"mac": "52:54:00:00:00:01"}], "hca": {"mac": "52:54:00:00:01:01"},
        });
        serde_json::from_value(spec).unwrap()
    }

    /// Everything of this host that a VM would leave behind.
    pub fn leftovers(&self) -> Vec<String> {
        let vms = self.folder.path().join("state/vms");
        let entries = std::fs::read_dir(vms).into_iter().flatten();
        let directories = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir());
        let mut all: Vec<String> = directories.map(|path| path.display().to_string()).collect();
        all.extend(taps());
        all
    }
}

fn config(folder: &TempDir) -> HostConfig {
    serde_json::from_value(serde_json::json!({
        "host": "a", "state_dir": folder.path().join("state"), "bridge": "br0",
    }))
    .unwrap()
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip")
        .args(arguments)
        .status()
        .expect("ip is needed for this test");
    assert!(done.success(), "ip {arguments:?}");
}

/// The taps in this namespace.
pub fn taps() -> Vec<String> {
    let shown = Command::new("ip")
        .args(["-brief", "link", "show", "type", "tun"])
        .output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    shown
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// It prints a B when it boots and then dots for ever.
const CODE: [u8; 21] = [
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'B', 0xee, // out dx, 'B'
    0xb0, b'.', 0xee, // again: out dx, '.'
    0xbb, 0x20, 0x00, // mov bx, 32
    0x31, 0xc9, // outer: xor cx, cx
    0xe2, 0xfe, // inner: loop inner
    0x4b, 0x75, 0xf9, // dec bx; jnz outer
    0xeb, 0xf1, // jmp again
];

/// A disk that the firmware boots.
pub fn bootable() -> Vec<u8> {
    let mut disk = vec![0u8; 1 << 20];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The smallest kernel of the same.
fn kernel() -> Vec<u8> {
    let mut image = vec![0u8; 4096];
    image[0x1f1] = 1; // one sector of setup code
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x200..0x202].copy_from_slice(&[0xeb, 0x66]); // over the header
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x02, 0x02]); // protocol 2.2
    image[0x211] = 1; // loaded high
    image[0x268..0x268 + CODE.len()].copy_from_slice(&CODE);
    image
}

/// Waits until the guest has printed something that `enough` accepts.
pub async fn console(instance: &Instance, enough: impl Fn(&str) -> bool) -> String {
    let file: PathBuf = instance.files.console();
    let printed = async {
        loop {
            let text = std::fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            if enough(&text) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, printed)
        .await
        .expect("the guest does not print")
}

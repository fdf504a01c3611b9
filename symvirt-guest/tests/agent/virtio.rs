//! The agent on a real virtio-serial port: a guest of nothing but busybox and the agent.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::link::Link;

use crate::daemon::Daemon;

const INIT: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /run
exec /bin/symvirt-guest agent
";

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().expect("kill QEMU");
        self.0.wait().expect("reap QEMU");
    }
}

/// An initramfs with busybox, the agent and the libraries it needs.
fn initramfs(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    for below in ["bin", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(below)).expect("mkdir");
    }
    let agent = env!("CARGO_BIN_EXE_symvirt-guest");
    fs::copy(agent, root.join("bin/symvirt-guest")).expect("copy agent");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "mount", "mkdir"] {
        symlink("busybox", root.join("bin").join(applet)).expect("symlink");
    }
    let needed = Command::new("ldd").arg(agent).output().expect("ldd");
    for word in String::from_utf8_lossy(&needed.stdout).split_whitespace() {
        if let Some(below) = word.strip_prefix('/') {
            let place = root.join(below);
            fs::create_dir_all(place.parent().expect("below root")).expect("mkdir");
            fs::copy(word, place).expect("copy library");
        }
    }
    fs::write(root.join("init"), INIT).expect("write init");
    let pack = "chmod +x init && find . | cpio --quiet -o -H newc > ../initrd.cpio";
    let packed = Command::new("sh")
        .args(["-c", pack])
        .current_dir(&root)
        .status();
    assert!(packed.expect("cpio is installed").success());
    directory.join("initrd.cpio")
}

fn boot(directory: &Path) -> Guest {
    let kernel = std::env::var_os("SYMVIRT_TEST_KERNEL").expect("SYMVIRT_TEST_KERNEL");
    let channel = directory.join("channel").display().to_string();
    let console = directory.join("console").display().to_string();
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "256",
            "-nodefaults",
        ])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-append",
            "console=ttyS0 quiet panic=-1",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs(directory))
        .args(["-serial", &format!("file:{console}")])
        .args([
            "-chardev",
            &format!("socket,id=c,path={channel},reconnect-ms=100"),
        ])
        .args(["-device", "virtio-serial-pci"])
        .args([
            "-device",
            "virtserialport,chardev=c,name=org.symvirt.guest.0",
        ])
        .stdin(Stdio::null())
        .spawn()
        .expect("QEMU is installed");
    Guest(child)
}

#[test]
#[ignore = "boots a guest: needs QEMU, busybox-static, and a kernel in SYMVIRT_TEST_KERNEL"]
fn a_virtio_serial_port_is_found_lost_and_found_again() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut daemon = Daemon::listen(&directory.path().join("channel"));
    let _guest = boot(directory.path());
    daemon.accept();
    daemon.patience *= 10;
    daemon.run("hello", |daemon| {
        matches!(daemon.heard.last(), Some(FromAgent::Hello { .. }))
    });
    for round in 1..6 {
        daemon.send(&ToAgent::ReportDevices);
        daemon.run("report", |daemon| {
            let reports = daemon
                .heard
                .iter()
                .filter(|h| matches!(h, FromAgent::Devices(_)));
            reports.count() >= round
        });
        daemon.disconnect();
        daemon.accept();
    }
    assert_eq!(
        daemon.sessions, 1,
        "no memory was lost with the connections"
    );
    daemon.link = Link::new(77);
    daemon.disconnect();
    daemon.accept();
    daemon.run("second hello", |daemon| {
        daemon
            .heard
            .iter()
            .filter(|heard| matches!(heard, FromAgent::Hello { .. }))
            .count()
            == 2
    });
}

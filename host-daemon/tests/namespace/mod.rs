//! Namespaces of its own for a test.

use std::process::Command;

const INSIDE: &str = "SYMVIRT_TEST_NAMESPACE";

/// Runs the test `name` in namespaces of its own (network, processes), by starting this program
/// again there; with it the kernel ends every QEMU and removes every tap. True in there, where
/// every port is free and the loopback is up.
pub fn inside_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip is needed for this test").success());
        return true;
    }
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let test = std::env::current_exe().unwrap();
    let output = unshare
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(test)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux is needed for this test");
    assert!(
        output.status.success(),
        "in the namespace:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

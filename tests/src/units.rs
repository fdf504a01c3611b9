//! A systemd of a test's own, process 1 of namespaces made for it, that knows the units of
//! `packaging/` and no others. The machine's own systemd is not asked, nor need there be one; of the
//! machine's files nothing can be written.
//!
//! The units are what users get, but for where programs and configurations are: in [`BED`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::job;
use crate::place::privileged;

/// The folder of a bed, as its units see it.
pub const BED: &str = "/run/bed";

/// Longest life of a bed.
const LIMIT: Duration = Duration::from_secs(300);

/// Set for the test in there.
const INSIDE: &str = "SYMVIRT_UNITS";

/// What makes the namespaces a machine that systemd can begin on. `$1`: the folder of the bed.
const BEGIN: &str = r#"
mount --make-rprivate /
mount -t tmpfs -o mode=755 run /run
mkdir /run/bed
mount --bind "$1" /run/bed
mount -o remount,bind,ro /
for folder in /tmp /var/tmp /var/lib; do mount -t tmpfs -o mode=1777 units "$folder"; done
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2> /dev/null || {
    # A kernel without the second version: only names of groups are needed.
    mount -t tmpfs cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
}
ip link set lo up
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH=/run/bed/units \
    /lib/systemd/systemd --unit=check.service --log-target=console --log-level=info
"#;

/// What units of services ask for without saying so.
const TARGETS: [&str; 4] = ["sysinit", "basic", "shutdown", "network-online"];

/// What a test's systemd is to know.
pub struct Bed {
    folder: TempDir,
}

impl Bed {
    /// A bed without units.
    ///
    /// # Panics
    /// If the disk is full, as everywhere here.
    #[must_use]
    pub fn new() -> Self {
        let bed = Self {
            folder: tempfile::tempdir().expect("make a folder"),
        };
        for target in TARGETS {
            let text = "[Unit]\nDefaultDependencies=no\n";
            bed.file(&format!("units/{target}.target"), text);
        }
        bed
    }

    /// Where a file of the bed is, outside of it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the bed.
    pub fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(&path)).expect("make a folder");
        fs::write(&path, text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    }

    /// Takes in a program, or another file, under its own name.
    pub fn program(&self, path: &Path) {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).expect("make a folder");
        let name = path.file_name().expect("invariant: a file");
        fs::copy(path, bin.join(name)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }

    /// Takes in a unit of `packaging/`, under another name and otherwise as `changed` has it, with a
    /// drop-in as an administrator writes it.
    pub fn unit(&self, path: &str, name: &str, changed: impl Fn(String) -> String, drop_in: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
        let text = fs::read_to_string(source.join(path)).expect("read the unit");
        let here = text
            .replace("/usr/bin/", &format!("{BED}/bin/"))
            .replace("/etc/symvirt/", &format!("{BED}/"));
        assert_ne!(here, text, "{path} starts nothing that users install");
        self.file(&format!("units/{name}.service"), &changed(here));
        let log = format!("[Service]\nStandardOutput=append:{BED}/{name}.log\n{drop_in}");
        self.file(&format!("units/{name}.service.d/bed.conf"), &log);
    }

    /// Runs the test `name` of this program under the bed's systemd.
    ///
    /// # Panics
    /// With all that was said, if it fails or systemd does not come up.
    pub fn run(&self, name: &str) {
        let program = std::env::current_exe().expect("this program has a path");
        self.program(&program);
        let program = Path::new(BED)
            .join("bin")
            .join(program.file_name().expect("invariant: a file"));
        self.file(
            "units/check.service",
            &format!(
                "[Unit]\nDefaultDependencies=no\nSuccessAction=exit-force\n\
                 FailureAction=exit-force\n[Service]\nType=oneshot\n\
                 ExecStart={} {name} --exact --nocapture\nEnvironment={INSIDE}=1 PATH={}\n\
                 StandardOutput=append:{BED}/check.log\nStandardError=append:{BED}/check.log\n",
                program.display(),
                std::env::var("PATH").unwrap_or_default(),
            ),
        );
        let mut command = privileged("unshare");
        command
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"])
            .args(["--fork", "--kill-child", "sh", "-ec", BEGIN, "sh"])
            .arg(self.folder.path());
        let outcome = job::run(&mut command, LIMIT).expect("start unshare");
        let mut said = String::new();
        for log in ["check", "symvirtd", "symvirtd-b", "symvirt-agent"] {
            let text = fs::read_to_string(self.path(&format!("{log}.log")));
            said += &format!("--- {log}\n{}\n", text.unwrap_or_default());
        }
        assert!(
            outcome.succeeded() && said.contains("1 passed"),
            "{}\n{said}",
            outcome.describe()
        );
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether this is the test inside of its bed.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a program of the bed, or of the machine.
///
/// # Panics
/// If it fails.
pub fn done(program: &str, words: &[&str]) {
    drop(said(program, words));
}

/// What such a program prints.
///
/// # Panics
/// If it fails.
pub fn said(program: &str, words: &[&str]) -> String {
    asked(program, words).unwrap_or_else(|failure| panic!("{program} {words:?}: {failure}"))
}

/// The same of one that may fail.
///
/// # Errors
/// How it ended, and what it said.
pub fn asked(program: &str, words: &[&str]) -> Result<String, String> {
    let here = Path::new(BED).join("bin").join(program);
    let of_bed = Some(here).filter(|path| path.exists());
    let program = of_bed.unwrap_or_else(|| program.into());
    let output = Command::new(program).args(words).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}\n{text}{errors}", output.status))
}

/// A line of /proc/PID/status.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn status_line(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default()
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

/// The main process of a service.
///
/// # Panics
/// If it has none.
#[must_use]
pub fn main_pid(unit: &str) -> u32 {
    let pid = said(
        "systemctl",
        &["show", "--property=MainPID", "--value", unit],
    );
    pid.trim().parse().expect("a process id")
}

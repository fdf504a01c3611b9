//! Where a job runs: on this machine, or in Debian trixie, made in a directory from the mirror of
//! this machine, with its own Open MPI, MPICH, UCX and compiler.
//!
//! ```text
//!  unshare --mount ─► /proc /sys /dev, the target and temporary directories, public
//!        │            suites, tests/apps, headers: bound to the same paths below the directory
//!        └─► chroot ─► symvirt-guest rehearse ─► mpirun ─► ranks
//! ```
//!
//! The mounts are those of the job's own namespace: they end with it, however it ends. Root is
//! needed, or `sudo` without a password; the job itself runs as whoever asks for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::kept::{self, KeptError};
use crate::{apps, bootstrap, built};

const SUITE: &str = "trixie";

const PACKAGES: &[&str] = &[
    // libltdl-dev wants what only this provides; debootstrap does not look for providers.
    "automake",
    "gcc",
    "libc6-dev",
    "libmpich-dev",
    "libopenmpi-dev",
    "libucx0",
    "make",
    "mpich",
    "openmpi-bin",
    // MPICH's tests want it to be configured.
    "python3",
];

/// First argument: the directory; then the paths to bind, an empty word, and the command for
/// `chroot`.
const ENTER: &str = r#"
set -e
root=$1; shift
for path in /proc /sys /dev; do mount --rbind $path "$root$path"; done
while [ -n "$1" ]; do
    if [ -d "$1" ]; then mkdir -p "$root$1"; else touch "$root$1"; fi
    mount --bind "$1" "$root$1"
    shift
done
shift
exec chroot "$@"
"#;

/// Where a job runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This machine.
    Machine,
    /// Debian trixie on this machine.
    Trixie,
}

impl Place {
    /// `program`, to be given arguments. The release build, temporary files, public suites, and the
    /// sources of the test programs are at the same paths everywhere. It has the pid of what is started.
    ///
    /// # Panics
    /// When the place cannot be made: there is nothing to test then.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Place::Machine => Command::new(program),
            Place::Trixie => enter(trixie(), program.as_ref()),
        }
    }
}

fn enter(root: &Path, program: &OsStr) -> Command {
    let mut command = privileged("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(root)
        .arg(std::env::temp_dir())
        .arg(built::target_dir())
        .arg(suites())
        .arg(apps::sources())
        .arg(apps::include())
        .args(["/etc/hosts", ""]);
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !user.is_root() {
        command.arg(format!("--userspec={user}:{group}"));
    }
    command.arg(root).arg(program);
    command
}

/// Where public suites are compiled.
fn suites() -> PathBuf {
    kept::part("suites").unwrap_or_else(|error| panic!("{error}"))
}

/// As root; `sudo` keeps the environment.
pub(crate) fn privileged(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", "-E", "--", program]);
    command
}

/// The directory of trixie, made once (about a minute).
fn trixie() -> &'static Path {
    static ROOT: OnceLock<Result<PathBuf, KeptError>> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let mut recipe = vec![SUITE];
        recipe.extend(PACKAGES);
        kept::ensure("roots", &recipe, make_trixie)
    });
    root.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

fn make_trixie(root: &Path) -> Result<(), KeptError> {
    println!("making Debian {SUITE} in {}", root.display());
    let bootstrap = bootstrap::command(SUITE, PACKAGES, root).ok_or(KeptError::Unfit(
        "no Debian mirror: /etc/apt has no source for bookworm or trixie",
    ))?;
    let mut command = privileged("env");
    for (name, value) in bootstrap.get_envs() {
        let mut word = name.to_owned();
        word.push("=");
        word.push(value.unwrap_or_default());
        command.arg(word);
    }
    kept::run(
        command
            .arg(bootstrap.get_program())
            .args(bootstrap.get_args()),
    )
}

//! What the machine must allow, checked before anything is changed.

use std::path::Path;
use std::process::{Command, Stdio};

/// How commands that need root are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// This process is root.
    Root,
    /// By `sudo`, without asking.
    Sudo,
}

impl Privilege {
    /// `program`, to be run as root with this environment.
    pub fn command(self, program: &Path) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "-E", "env"]);
                command.arg(format!("PATH={}", search_path()));
                command.arg(program);
                command
            }
        }
    }

    fn succeeds(self, words: &[&str]) -> bool {
        let mut command = self.command(Path::new(words[0]));
        command.args(&words[1..]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Where programs are looked for: also where those of administrators are, which Debian leaves out for
/// other users.
pub fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// Something the machine does not allow.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Neither root nor sudo.
    #[error(
        "root is needed (packages, network namespaces): run as root, or allow this user \
         `sudo` without a password; nothing was changed"
    )]
    Root,
    /// No network namespaces.
    #[error(
        "network namespaces are needed and cannot be made here (`unshare --net` fails); in a \
         container, give it CAP_SYS_ADMIN and CAP_NET_ADMIN; nothing was changed"
    )]
    Namespaces,
    /// No taps.
    #[error(
        "/dev/net/tun is needed and cannot be opened; load the tun module, or give the container \
         the device; nothing was changed"
    )]
    Tun,
    /// Not the distribution that the recipes are for.
    #[error("Debian 12 (bookworm) is needed, this is {0}; nothing was changed")]
    Release(String),
}

/// Root, or sudo.
///
/// # Errors
/// [`Unfit::Root`].
pub fn privilege() -> Result<Privilege, Unfit> {
    if nix::unistd::geteuid().is_root() {
        Ok(Privilege::Root)
    } else if Privilege::Sudo.succeeds(&["true"]) {
        Ok(Privilege::Sudo)
    } else {
        Err(Unfit::Root)
    }
}

/// Everything that cannot be installed. Has no side effect: the namespace that is tried ends with
/// the probe.
///
/// # Errors
/// The first [`Unfit`].
pub fn check() -> Result<Privilege, Unfit> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if field("VERSION_CODENAME=").as_deref() != Some("bookworm") {
        let name = field("PRETTY_NAME=").unwrap_or_else(|| "unknown".into());
        return Err(Unfit::Release(name));
    }
    let privilege = privilege()?;
    if !privilege.succeeds(&["unshare", "--net", "--mount", "--", "true"]) {
        return Err(Unfit::Namespaces);
    }
    if !privilege.succeeds(&["sh", "-c", "exec 3<>/dev/net/tun"]) {
        return Err(Unfit::Tun);
    }
    Ok(privilege)
}

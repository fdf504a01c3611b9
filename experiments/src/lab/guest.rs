//! One guest: its identity, its specification for the daemon, and ssh into it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::LabError;
use crate::command;
use crate::image::Image;

/// Time for a guest to boot on a loaded machine.
const BOOT: Duration = Duration::from_secs(180);

/// Identity of a guest, from its number (1 to 8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestId(pub u8);

impl GuestId {
    /// Host name in the guest, and name of the VM.
    pub fn name(self) -> String {
        format!("g{}", self.0)
    }

    /// Address on Ethernet.
    pub fn address(self) -> String {
        format!("10.77.0.{}", 10 + self.0)
    }

    /// The VM's specification, in the daemon's format.
    pub fn spec(self, image: &Image, payload: &Path, options: &SpecOptions) -> String {
        let (name, n) = (self.name(), self.0);
        let (kernel, initrd, base) = (image.kernel(), image.initrd(), image.base());
        let template = options.template.as_ref().map_or_else(String::new, |path| {
            format!("template = {:?}\n", path.display().to_string())
        });
        let hca = if options.hca {
            format!("\n[hca]\nmac = \"52:54:00:78:00:{n:02x}\"\n")
        } else {
            String::new()
        };
        format!(
            r#"name = "{name}"
gang = "{gang}"
memory = "512MiB"
balloon = true
kernel = "{kernel}"
initrd = "{initrd}"
append = "console=ttyS0 net.ifnames=0 mitigations=off quiet panic=-1 symvirt.name={name} symvirt.index={n}"
{template}
[[disk]]
path = "{base}"
format = "raw"
read_only = true

[[disk]]
path = "{payload}"
format = "raw"
read_only = true

[[net]]
mac = "52:54:00:77:00:{n:02x}"
{hca}"#,
            gang = options.gang,
            kernel = kernel.display(),
            initrd = initrd.display(),
            base = base.display(),
            payload = payload.display(),
        )
    }
}

/// What differs between guests of one bed.
#[derive(Clone, Debug)]
pub struct SpecOptions {
    /// The gang.
    pub gang: String,
    /// Whether it wants an HCA.
    pub hca: bool,
    /// Restored instead of booting.
    pub template: Option<PathBuf>,
}

/// A guest that can be reached.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Who it is.
    pub id: GuestId,
    namespace: String,
    ssh_key: PathBuf,
    control: PathBuf,
}

impl Guest {
    /// `namespace` is one whose Ethernet the guest is on; `directory` takes the control socket.
    pub fn new(id: GuestId, namespace: &str, image: &Image, directory: &Path) -> Self {
        Self {
            id,
            namespace: namespace.to_owned(),
            ssh_key: image.ssh_key(),
            control: directory.join(format!("ssh-{}", id.name())),
        }
    }

    /// `ssh` to run `script` in the guest, over one connection that all calls share.
    pub fn ssh(&self, script: &str) -> Command {
        let mut command = self.ssh_base();
        command
            .args(["-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o"])
            .arg(format!("ControlPath={}", self.control.display()))
            .arg(format!("root@{}", self.id.address()))
            .arg(script);
        command
    }

    /// `ssh` for a person at a terminal.
    pub fn terminal(&self) -> Command {
        let mut command = self.ssh_base();
        command.arg("-t").arg(format!("root@{}", self.id.address()));
        command
    }

    fn ssh_base(&self) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "ssh", "-i"])
            .arg(&self.ssh_key)
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=15"]);
        command
    }

    /// Runs `script` in the guest and returns its output.
    ///
    /// # Errors
    /// [`LabError::Program`] if it fails or takes longer than `limit`.
    pub fn run_within(&self, script: &str, limit: Duration) -> Result<String, LabError> {
        Ok(command::output_within(&mut self.ssh(script), limit)?)
    }

    /// As [`Guest::run_within`] with a minute's limit.
    ///
    /// # Errors
    /// As there.
    pub fn run(&self, script: &str) -> Result<String, LabError> {
        self.run_within(script, Duration::from_secs(60))
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn write(&self, path: &str, content: &str) -> Result<(), LabError> {
        let mut command = self.ssh(&format!("cat > {path}"));
        command::output_with_input(&mut command, content.as_bytes())?;
        Ok(())
    }

    /// Waits until the guest takes commands.
    ///
    /// # Errors
    /// [`LabError::Silent`].
    pub fn wait_until_up(&self) -> Result<(), LabError> {
        self.wait_until("true", BOOT)
    }

    /// Waits until `script` succeeds in the guest.
    ///
    /// # Errors
    /// [`LabError::Silent`].
    pub fn wait_until(&self, script: &str, limit: Duration) -> Result<(), LabError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.run_within(script, Duration::from_secs(20)) {
                Ok(_) => return Ok(()),
                Err(last) if Instant::now() >= deadline => {
                    return Err(LabError::Silent {
                        guest: self.id.name(),
                        script: script.to_owned(),
                        limit,
                        last: last.to_string(),
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}

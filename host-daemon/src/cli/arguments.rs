//! The commands and their help.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{ByteSize, GangName, HostName, Role, UserName, VmName};
use crate::operation::{Compress, DropCache, IfNotConverging, Limits, Mode, OperationId, Target};

const ABOUT: &str = "Moves running MPI jobs, with the VMs they run in, between hosts";

const GUIDE: &str = "\
A first crossing, from host a to host b:
  symvirt pki init --dir pki --host a=10.0.0.1 --host b=10.0.0.2
  symvirtd --config a.toml          (on a; the same with b.toml on b)
  symvirt vm start vm1.toml vm2.toml
  … start the job in the VMs by `symvirt-guest exec -- mpirun …` …
  symvirt gang list
  symvirt migrate job --to b

Exit status:
   0  done as asked
   1  could not be carried out (no daemon, unreadable file)
   2  usage
   3  refused, nothing was changed
   4  detached from an operation that goes on
  10  rolled back: everything is as before
  11  degraded: the job runs, on less than it was to have
  12  needs an operator: the message says what to do";

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "symvirt", version, about = ABOUT, after_help = GUIDE)]
pub(super) struct Arguments {
    /// Socket of the daemon on this host; /run/symvirt/symvirtd.sock, if it is there
    #[arg(long, global = true, env = "SYMVIRT_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The daemon of another host instead, over TLS; needs --identity
    #[arg(long, global = true, env = "SYMVIRT_REMOTE", value_name = "HOST=ADDRESS:PORT",
          value_parser = named::<HostName, SocketAddr>)]
    pub remote: Option<(HostName, SocketAddr)>,
    /// For --remote: your certificate, as `symvirt pki user` makes it. Beside it are its key (with
    /// .key for .pem) and the authority's certificate, ca.pem
    #[arg(long, global = true, env = "SYMVIRT_IDENTITY", value_name = "PATH")]
    pub identity: Option<PathBuf>,
    /// Print JSON: one value, or one value a line where there is progress
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make certificates for daemons and for users at other machines
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Start, stop and list the VMs of this host
    #[command(subcommand)]
    Vm(VmCommand),
    /// List the gangs of this host
    #[command(subcommand)]
    Gang(GangCommand),
    /// Show this host
    #[command(subcommand)]
    Host(HostCommand),
    /// Move all VMs of a gang, and its job, to another host
    Migrate(Migrate),
    /// Change a gang's interconnect where it is
    Switch(Switch),
    /// Show operations, or one of them
    Status {
        /// Which; all if not given
        operation: Option<OperationId>,
    },
    /// Follow an operation to its end
    Watch {
        /// Which; the newest if not given
        operation: Option<OperationId>,
    },
    /// Undo an operation that has not passed its point of no return
    Cancel {
        /// Which
        operation: OperationId,
    },
    /// Give back what an operation of another host has reserved on this one, if that host will not:
    /// QEMUs that wait for its VMs are ended, VMs that have arrived are not touched. `symvirt host
    /// show` lists what is reserved
    Release {
        /// Which
        operation: OperationId,
        /// The host that began it does not answer, and you know that it will never go on: one that
        /// does finds its copies broken off
        #[arg(long)]
        coordinator_is_gone: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum PkiCommand {
    /// Make an authority, and a certificate and key for each host
    Init {
        /// Directory for the files
        #[arg(long)]
        dir: PathBuf,
        /// A host and its address; repeat for each
        #[arg(long = "host", value_name = "NAME=ADDRESS", required = true,
              value_parser = named::<HostName, IpAddr>)]
        hosts: Vec<(HostName, IpAddr)>,
    },
    /// Make a certificate with which a user at another machine may ask the daemons (--remote)
    User {
        /// The user, as the daemons' logs are to call them
        name: UserName,
        /// viewer: sees everything. operator: starts and cancels operations, too. admin: starts and
        /// ends VMs, too
        #[arg(long, value_enum)]
        role: RoleName,
        /// Directory of the authority
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum VmCommand {
    /// Start VMs
    Start {
        /// Files of the VMs
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<PathBuf>,
    },
    /// End VMs, at once
    Stop {
        /// Which
        #[arg(required = true, value_name = "NAME")]
        names: Vec<VmName>,
    },
    /// Run a VM that has arrived by an operation that could not tell it to run
    Resume {
        /// Which
        name: VmName,
        /// You have seen that the source does not run it: `symvirt vm list` there shows it as
        /// migrated, or not at all. Two copies that run destroy each other's data
        #[arg(long, required = true)]
        source_is_stopped: bool,
    },
    /// List VMs
    List,
}

#[derive(Subcommand, Debug)]
pub(super) enum GangCommand {
    /// List gangs, their VMs and ranks
    List,
}

#[derive(Subcommand, Debug)]
pub(super) enum HostCommand {
    /// Free memory and HCAs, and peers
    Show,
}

#[derive(Args, Debug)]
pub(super) struct Migrate {
    /// The gang
    pub gang: GangName,
    /// The host it is to run on
    #[arg(long, value_name = "HOST")]
    pub to: HostName,
    /// live: the job runs all the time, during the copy without HCA.
    /// hold: it stands still during the copy, and moves the fewest bytes
    #[arg(long, value_enum, default_value = "live")]
    pub mode: ModeName,
    #[command(flatten)]
    pub bounds: Bounds,
    /// Return at once; `symvirt watch` follows it
    #[arg(long)]
    pub detach: bool,
}

#[derive(Args, Debug)]
pub(super) struct Switch {
    /// The gang
    pub gang: GangName,
    /// fallback: everything but HCAs. native: what UCX finds best
    #[arg(long, value_enum)]
    pub to: TargetName,
    /// live: the new transports are built while the job runs on the old ones.
    /// hold: it stands still and lets go of the old ones first
    #[arg(long, value_enum, default_value = "live")]
    pub mode: ModeName,
    #[command(flatten)]
    pub bounds: SwitchBounds,
    /// Return at once; `symvirt watch` follows it
    #[arg(long)]
    pub detach: bool,
}

#[derive(Args, Debug)]
pub(super) struct SwitchBounds {
    /// Seconds for one switch of transports
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().switch_s)]
    pub switch_timeout: u64,
}

#[derive(Args, Debug)]
pub(super) struct Bounds {
    /// Milliseconds that a VM may stand still at its switchover
    #[arg(long, value_name = "MS", default_value_t = Limits::default().downtime_ms)]
    pub downtime: u64,
    /// Seconds for the gang's memory to be copied
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().converge_s)]
    pub converge_timeout: u64,
    /// Seconds for the links of plugged HCAs to come up
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().link_s)]
    pub link_timeout: u64,
    /// Seconds for one unplug
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().unplug_s)]
    pub unplug_timeout: u64,
    /// Bytes a second that one VM's copy may use, like 100MiB; no limit if not given
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<ByteSize>,
    /// The same for all copies of the gang together, shared so that all VMs are ready at once: who
    /// dirties more, or has more left, gets more
    #[arg(long, value_name = "SIZE")]
    pub gang_bandwidth: Option<ByteSize>,
    /// What to do if the VMs dirty their memory faster than it is copied. refuse: roll back.
    /// hold: the job stands still for the rest of the copy. force: the VMs do. postcopy: the VMs
    /// cross, and the rest follows while they run; a host that fails until then takes them with it
    #[arg(long, value_enum, default_value = "refuse")]
    pub if_not_converging: IfNotConvergingName,
    /// Percent by which a job whose VMs dirty their memory too fast may be slowed down, step by
    /// step: all its ranks in the same beat; VMs without ranks by QEMU
    #[arg(long, value_name = "PERCENT", default_value_t = Limits::default().throttle,
          value_parser = clap::value_parser!(u8).range(0..=99))]
    pub throttle: u8,
    /// Compress what is copied. auto: if either bandwidth is below 48MiB
    #[arg(long, value_enum, default_value = "auto")]
    pub compress: CompressName,
    /// Let the guests forget files that they can read again before they are copied (those with a
    /// balloon). auto: if either bandwidth is below 1 Gbit/s
    #[arg(long, value_enum, default_value = "auto")]
    pub drop_page_cache: DropCacheName,
    #[command(flatten)]
    pub switch: SwitchBounds,
}

impl Bounds {
    pub fn limits(&self) -> Limits {
        Limits {
            downtime_ms: self.downtime,
            converge_s: self.converge_timeout,
            link_s: self.link_timeout,
            switch_s: self.switch.switch_timeout,
            unplug_s: self.unplug_timeout,
            bandwidth: self.bandwidth.map_or(0, |size| size.0),
            gang_bandwidth: self.gang_bandwidth.map_or(0, |size| size.0),
            if_not_converging: self.if_not_converging.into(),
            throttle: self.throttle,
            compress: self.compress.into(),
            drop_cache: self.drop_page_cache.into(),
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum ModeName {
    Live,
    Hold,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Live => Self::Live,
            ModeName::Hold => Self::Hold,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum IfNotConvergingName {
    Refuse,
    Hold,
    Force,
    Postcopy,
}

impl From<IfNotConvergingName> for IfNotConverging {
    fn from(name: IfNotConvergingName) -> Self {
        match name {
            IfNotConvergingName::Refuse => Self::Refuse,
            IfNotConvergingName::Hold => Self::Hold,
            IfNotConvergingName::Force => Self::Force,
            IfNotConvergingName::Postcopy => Self::Postcopy,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum CompressName {
    Auto,
    Off,
    Zstd,
}

impl From<CompressName> for Compress {
    fn from(name: CompressName) -> Self {
        match name {
            CompressName::Auto => Self::Auto,
            CompressName::Off => Self::Off,
            CompressName::Zstd => Self::Zstd,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum DropCacheName {
    Auto,
    Off,
    On,
}

impl From<DropCacheName> for DropCache {
    fn from(name: DropCacheName) -> Self {
        match name {
            DropCacheName::Auto => Self::Auto,
            DropCacheName::Off => Self::Off,
            DropCacheName::On => Self::On,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum TargetName {
    Fallback,
    Native,
}

impl From<TargetName> for Target {
    fn from(name: TargetName) -> Self {
        match name {
            TargetName::Fallback => Self::Fallback,
            TargetName::Native => Self::Native,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// `name=address`, like `a=10.0.0.1` or, with a port, `a=10.0.0.1:7420`.
fn named<N, A>(text: &str) -> Result<(N, A), String>
where
    N: FromStr<Err: Display>,
    A: FromStr<Err: Display>,
{
    let (name, address) = text
        .split_once('=')
        .ok_or("expected a name, `=` and an address, like a=10.0.0.1".to_owned())?;
    let name = name.parse().map_err(|error: N::Err| error.to_string())?;
    let address = address
        .parse()
        .map_err(|error| format!("`{address}`: {error}"))?;
    Ok((name, address))
}

//! Why an operation is refused before anything is touched: typed, with a stable code for programs
//! and a way out for people.

use serde::{Deserialize, Serialize};

use super::plan::OperationId;
use crate::config::{ByteSize, GangName, HcaName, HostName, VmName};

/// Why an operation, or a request about a VM, was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "denial", rename_all = "kebab-case")]
pub enum Denial {
    /// No VM of this host belongs to it.
    #[error("no gang `{gang}` on host {host}")]
    UnknownGang {
        /// As asked for.
        gang: GangName,
        /// The host that was asked.
        host: HostName,
        /// Gangs there are.
        known: Vec<GangName>,
        /// The peer that has it.
        elsewhere: Option<HostName>,
    },
    /// No such VM here.
    #[error("no VM `{vm}` on host {host}")]
    UnknownVm {
        /// As asked for.
        vm: VmName,
        /// The host that was asked.
        host: HostName,
        /// VMs there are.
        known: Vec<VmName>,
    },
    /// Not a configured peer.
    #[error("host `{host}` is not a peer")]
    UnknownHost {
        /// As asked for.
        host: HostName,
        /// Configured peers.
        known: Vec<HostName>,
    },
    /// The gang is there already.
    #[error("gang `{gang}` is on host {host} already")]
    AlreadyThere {
        /// The gang.
        gang: GangName,
        /// The host.
        host: HostName,
    },
    /// No such operation.
    #[error("no operation `{operation}`")]
    UnknownOperation {
        /// As asked for.
        operation: OperationId,
    },
    /// An id names one request.
    #[error("the id of this request is that of another one, which began operation {operation}")]
    RequestIdReused {
        /// What it began.
        operation: OperationId,
    },
    /// Too late for a cancel.
    #[error("operation {operation} cannot be cancelled: {why}")]
    CannotCancel {
        /// Which.
        operation: OperationId,
        /// Ended, or past the point of no return.
        why: String,
    },
    /// A reservation that is its coordinator's to give back.
    #[error("what {operation} has reserved here is host {host}'s to give back: {why}")]
    NotOrphaned {
        /// Which.
        operation: OperationId,
        /// Its coordinator.
        host: HostName,
        /// That it goes on with it, or does not answer.
        why: String,
    },
    /// A VM may have arrived, and nobody else have it.
    #[error("VM `{vm}`, which {operation} was to bring here, is {state}: it may be the only copy")]
    MayBeWhole {
        /// Which operation.
        operation: OperationId,
        /// Which VM.
        vm: VmName,
        /// What its QEMU does.
        state: String,
    },
    /// Where the gang's last operation stands cannot be read.
    #[error("nobody knows where {operation} on gang `{gang}` stands: {why}")]
    DamagedJournal {
        /// The gang.
        gang: GangName,
        /// The operation.
        operation: OperationId,
        /// Its journal.
        file: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// One operation at a time.
    #[error("gang `{gang}` is busy with {operation}")]
    Busy {
        /// The gang.
        gang: GangName,
        /// The operation under way.
        operation: OperationId,
    },
    /// A VM is not in a state to be moved.
    #[error("VM `{vm}` is {state}, not running")]
    NotRunning {
        /// Which.
        vm: VmName,
        /// What it is instead.
        state: String,
    },
    /// A VM is not one that has arrived and waits to be run.
    #[error("VM `{vm}` is {state}; it is not one that has arrived and was not run")]
    NotArrived {
        /// Which.
        vm: VmName,
        /// What it is instead.
        state: String,
    },
    /// A VM of that name exists.
    #[error("VM `{vm}` exists on host {host}")]
    VmExists {
        /// Which.
        vm: VmName,
        /// Where.
        host: HostName,
    },
    /// What was asked for contradicts itself.
    #[error("the bounds of the operation: {message}")]
    BadBounds {
        /// What is wrong and what was expected.
        message: String,
    },
    /// The VM's specification contradicts itself.
    #[error("VM `{vm}`: {message}")]
    BadSpec {
        /// Which.
        vm: VmName,
        /// What is wrong and what was expected.
        message: String,
    },
    /// A file of the VM is not there.
    #[error("VM `{vm}`: host {host} cannot read {file}")]
    MissingFile {
        /// Which.
        vm: VmName,
        /// The host.
        host: HostName,
        /// The file.
        file: std::path::PathBuf,
    },
    /// Not enough memory.
    #[error("host {host} has {free} of memory for VMs left, {wanted} are needed")]
    Full {
        /// The host.
        host: HostName,
        /// What is left.
        free: ByteSize,
        /// What is needed.
        wanted: ByteSize,
    },
    /// Not enough virtual CPUs.
    #[error("host {host} has {free} virtual CPUs for VMs left, {wanted} are needed")]
    NoVcpus {
        /// The host.
        host: HostName,
        /// What is left.
        free: u32,
        /// What is needed.
        wanted: u32,
    },
    /// No HCA left for a VM that is to be started.
    #[error("host {host} has no free HCA for VM `{vm}`")]
    NoHca {
        /// The host.
        host: HostName,
        /// The VM.
        vm: VmName,
        /// HCAs and who has them.
        taken: Vec<(HcaName, VmName)>,
    },
    /// The peer does not answer.
    #[error("host {host} is unreachable: {reason}")]
    Unreachable {
        /// The host.
        host: HostName,
        /// Why.
        reason: String,
    },
    /// The peer's certificates are of another authority, or it refuses ours.
    #[error("host {host} and this host do not accept each other's certificates: {reason}")]
    Certificates {
        /// The host.
        host: HostName,
        /// Why.
        reason: String,
    },
    /// The peer is another version of this program.
    #[error("host {host} speaks API version {theirs}, this host {ours}")]
    ApiVersion {
        /// The host.
        host: HostName,
        /// Theirs.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// No agent answers in a guest whose HCA, or whose transport, is to be changed.
    #[error("no agent answers in guest `{vm}`")]
    NoAgent {
        /// Which VM.
        vm: VmName,
    },
    /// The agent speaks another protocol version.
    #[error("agent of guest `{vm}`: {reason}")]
    AgentVersion {
        /// Which VM.
        vm: VmName,
        /// Both versions.
        reason: String,
    },
}

impl Denial {
    /// Stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownGang { .. } => "unknown-gang",
            Self::UnknownVm { .. } => "unknown-vm",
            Self::UnknownHost { .. } => "unknown-host",
            Self::AlreadyThere { .. } => "already-there",
            Self::UnknownOperation { .. } => "unknown-operation",
            Self::RequestIdReused { .. } => "request-id-reused",
            Self::CannotCancel { .. } => "cannot-cancel",
            Self::NotOrphaned { .. } => "not-orphaned",
            Self::MayBeWhole { .. } => "may-be-whole",
            Self::DamagedJournal { .. } => "damaged-journal",
            Self::Busy { .. } => "busy",
            Self::NotRunning { .. } => "not-running",
            Self::NotArrived { .. } => "not-arrived",
            Self::VmExists { .. } => "vm-exists",
            Self::BadBounds { .. } => "bad-bounds",
            Self::BadSpec { .. } => "bad-spec",
            Self::MissingFile { .. } => "missing-file",
            Self::Full { .. } | Self::NoVcpus { .. } => "destination-full",
            Self::NoHca { .. } => "no-hca",
            Self::Unreachable { .. } => "unreachable",
            Self::Certificates { .. } => "certificates",
            Self::ApiVersion { .. } => "api-version",
            Self::NoAgent { .. } => "no-agent",
            Self::AgentVersion { .. } => "agent-version",
        }
    }

    /// What to do about it.
    pub fn way_out(&self) -> String {
        match self {
            Self::UnknownGang {
                gang,
                elsewhere: Some(host),
                ..
            } => {
                format!("{gang} is on host {host}: ask the daemon there")
            }
            Self::UnknownGang { known, .. } => known_ones("gangs here", known),
            Self::UnknownVm { known, .. } => known_ones("VMs here", known),
            Self::UnknownHost { known, .. } => {
                known_ones("configured peers", known) + "; a new one needs a `[[peer]]` entry"
            }
            Self::AlreadyThere { .. } => "nothing to do".into(),
            Self::RequestIdReused { .. } => "each request needs an id of its own".into(),
            Self::UnknownOperation { .. } => "`symvirt status` lists them".into(),
            Self::CannotCancel { operation, .. } => {
                format!("`symvirt watch {operation}` follows it to its end")
            }
            Self::Busy { operation, .. } => {
                format!(
                    "wait for it (`symvirt watch {operation}`) or `symvirt cancel {operation}`, on \
                     the host that began it; `symvirt release {operation}` if that is gone for good"
                )
            }
            Self::NotOrphaned {
                operation, host, ..
            } => format!(
                "`symvirt cancel {operation}` on {host}; if {host} will never be back, `symvirt \
                 release {operation} --coordinator-is-gone`"
            ),
            Self::DamagedJournal { file, .. } => format!(
                "see by `symvirt vm list` here and on the other host that each VM of the gang runs \
                 once, end what else there is of it by `symvirt vm stop`, move {} away and restart \
                 symvirtd",
                file.display()
            ),
            Self::MayBeWhole { vm, .. } => format!(
                "`symvirt vm resume {vm} --source-is-stopped` runs it; if its source runs, `symvirt \
                 vm stop {vm}` ends it here"
            ),
            Self::NotRunning { vm, .. } => {
                format!("`symvirt vm list` shows states; `symvirt vm stop {vm}` ends it")
            }
            Self::NotArrived { .. } => "`symvirt vm list` on both hosts shows where it runs".into(),
            Self::VmExists { vm, .. } => {
                format!("`symvirt vm stop {vm}` there, or give the VM another name")
            }
            Self::BadBounds { .. } => "`symvirt migrate --help` explains them".into(),
            Self::BadSpec { .. } => "correct its file".into(),
            Self::MissingFile { .. } => {
                "disks, kernel and initrd of a VM must be at the same path on every host that it \
                 may run on"
                    .into()
            }
            Self::Full { .. } => {
                "stop VMs there, raise `memory` in its configuration, or choose another host".into()
            }
            Self::NoVcpus { .. } => {
                "stop VMs there, raise `vcpus` in its configuration, or choose another host".into()
            }
            Self::NoHca { taken, .. } => {
                let taken: Vec<_> = taken
                    .iter()
                    .map(|(hca, vm)| format!("{hca} is {vm}'s"))
                    .collect();
                let taken = if taken.is_empty() {
                    "there is none".into()
                } else {
                    taken.join(", ")
                };
                format!("{taken}; add an `[[hca]]` or start the VM without `[hca]`")
            }
            Self::Unreachable { host, .. } => {
                format!("see that symvirtd runs on {host}, and that `[[peer]]` has its address")
            }
            Self::Certificates { .. } => {
                "both need certificates of one authority, naming the host: `symvirt pki init` \
                 makes them"
                    .into()
            }
            Self::ApiVersion { .. } => "install the same version on both".into(),
            Self::NoAgent { .. } => {
                "start `symvirt-guest agent` in it: without it nobody would let go of the HCA"
                    .into()
            }
            Self::AgentVersion { .. } => "install the same version in the guest".into(),
        }
    }
}

fn known_ones<T: std::fmt::Display>(what: &str, known: &[T]) -> String {
    if known.is_empty() {
        return format!("{what}: none");
    }
    let names: Vec<_> = known.iter().map(T::to_string).collect();
    format!("{what}: {}", names.join(", "))
}

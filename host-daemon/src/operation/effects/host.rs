//! What hosts are asked, and what they answer.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::super::denial::Denial;
use super::super::plan::{OperationId, Target};
use crate::config::{GangName, HcaName, HostName, VmName, VmSpec};
use crate::retry::Wish;

/// What a host can be asked to do with its VMs. Every call is idempotent: after a lost answer it
/// can be repeated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum HostCall {
    /// Destination: see that the VMs fit, reserve their memory and, if there is one for every VM
    /// that wants one, their HCAs.
    Admit {
        /// For which operation.
        operation: OperationId,
        /// The VMs.
        vms: Vec<VmSpec>,
    },
    /// Destination: start the QEMU of an admitted VM, which waits for the stream.
    Prepare {
        /// For which operation.
        operation: OperationId,
        /// Which.
        vm: VmName,
        /// How the stream comes.
        #[serde(default)]
        streams: Streams,
    },
    /// Destination: the last check before the point of no return; refused if the QEMU does not
    /// wait any more.
    StillWaits {
        /// For which operation.
        operation: OperationId,
        /// Which.
        vm: VmName,
    },
    /// Destination: what the QEMU that waits says of the stream that broke off.
    Account {
        /// Which.
        vm: VmName,
    },
    /// Destination: end the QEMU that waits, if there is one. Refused for a VM that has run here.
    Discard {
        /// For which operation.
        operation: OperationId,
        /// Which.
        vm: VmName,
    },
    /// Destination: give back what the operation has reserved and not used.
    Release {
        /// For which operation.
        operation: OperationId,
    },
    /// Destination: run a VM whose source has completed.
    Resume {
        /// For which operation.
        operation: OperationId,
        /// Which.
        vm: VmName,
    },
    /// Destination: the gang is coordinated there from now on.
    Adopt {
        /// For which operation.
        operation: OperationId,
        /// The gang.
        gang: GangName,
        /// Switches of its transports so far.
        epoch: u64,
        /// What it communicates over.
        interconnect: Target,
        /// Guests whose agents are to be heard before the answer.
        agents: Vec<VmName>,
        /// What the operation could not give the gang, which it is to get there later.
        #[serde(default)]
        wish: Option<Wish>,
    },
    /// Plug an HCA; nothing happens if it is plugged.
    Plug {
        /// Which VM.
        vm: VmName,
        /// Which HCA.
        hca: HcaName,
    },
    /// Unplug the VM's HCA and wait until the guest has let go; nothing happens without one.
    Unplug {
        /// Which VM.
        vm: VmName,
        /// For how long to wait, in milliseconds.
        limit_ms: u64,
    },
    /// Source: begin to copy, and go on until the VM is stopped.
    StartCopy {
        /// Which VM.
        vm: VmName,
        /// The host that it goes to.
        to: HostName,
        /// Where QEMU waits there.
        uri: String,
        /// Bytes per second; 0 for no limit.
        bandwidth: u64,
        /// How the stream goes; as the destination was told.
        #[serde(default)]
        streams: Streams,
        /// How far the VM may be slowed down if it dirties its memory too fast, in percent.
        #[serde(default)]
        throttle: u8,
    },
    /// Source: how far the copy is.
    CopyStatus {
        /// Which VM.
        vm: VmName,
    },
    /// Source: change the bandwidth of the copy.
    Pace {
        /// Which VM.
        vm: VmName,
        /// Bytes per second; 0 for no limit.
        bandwidth: u64,
    },
    /// Source: stop a VM that is copied. It will stand in `pre-switchover` when the rest is sent, or
    /// at once if the rest is to follow.
    Stop {
        /// Which VM.
        vm: VmName,
        /// The rest follows while the VM runs at the destination, at so many bytes per second; 0
        /// for no limit. Only of [`Streams::Postcopy`].
        #[serde(default)]
        postcopy: Option<u64>,
    },
    /// Source: end the copy and see that the VM runs.
    CancelCopy {
        /// Which VM.
        vm: VmName,
    },
    /// Source: let a VM in `pre-switchover` cross, and wait until it has, or has not. Asked again of
    /// one whose memory still follows: wait until that has.
    Cross {
        /// Which VM.
        vm: VmName,
        /// For how long to wait, in milliseconds.
        limit_ms: u64,
    },
    /// Source: end the QEMU of a VM that has crossed.
    Retire {
        /// Which VM.
        vm: VmName,
    },
    /// Destination: the link over which the rest of a VM followed broke; wait for it anew.
    Rejoin {
        /// Which VM.
        vm: VmName,
    },
    /// Source: send on what is left of that VM.
    SendOn {
        /// Which VM.
        vm: VmName,
        /// Where QEMU waits for it.
        uri: String,
    },
    /// Either host: the other one's QEMU of a VM whose memory still followed has ended. Unless all of
    /// the VM is here, and it runs, its QEMU is ended too: nobody can bring what it lacks.
    Forfeit {
        /// Which VM.
        vm: VmName,
    },
    /// Source: run a VM that has crossed, whose QEMU at the destination has ended before it ran.
    Reclaim {
        /// Which VM.
        vm: VmName,
    },
    /// Whether that host has this operation under way; denied if not.
    Coordinates {
        /// Which.
        operation: OperationId,
    },
    /// See that the VM's QEMU is there: [`HostError::Gone`] if not.
    Look {
        /// Which VM.
        vm: VmName,
    },
}

impl HostCall {
    /// The VM it is about, if it is about one.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Admit { .. }
            | Self::Release { .. }
            | Self::Adopt { .. }
            | Self::Coordinates { .. } => None,
            Self::Prepare { vm, .. }
            | Self::StillWaits { vm, .. }
            | Self::Discard { vm, .. }
            | Self::Resume { vm, .. }
            | Self::Plug { vm, .. }
            | Self::Unplug { vm, .. }
            | Self::StartCopy { vm, .. }
            | Self::CopyStatus { vm }
            | Self::Pace { vm, .. }
            | Self::Stop { vm, .. }
            | Self::Rejoin { vm }
            | Self::SendOn { vm, .. }
            | Self::Forfeit { vm }
            | Self::CancelCopy { vm }
            | Self::Cross { vm, .. }
            | Self::Retire { vm }
            | Self::Reclaim { vm }
            | Self::Account { vm }
            | Self::Look { vm } => Some(vm),
        }
    }
}

/// Answer to a [`HostCall`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum HostReply {
    /// Done; nothing to say.
    Done,
    /// To [`HostCall::Admit`].
    Admitted {
        /// The HCA of each VM that wants one; empty if there are not enough.
        hcas: BTreeMap<VmName, HcaName>,
        /// How many were free and how many were wanted.
        free: usize,
        /// See `free`.
        wanted: usize,
    },
    /// To [`HostCall::Prepare`] and [`HostCall::Rejoin`].
    Waiting {
        /// Where the source is to send the stream.
        uri: String,
    },
    /// To [`HostCall::Account`].
    Account {
        /// In QEMU's words; empty if it says nothing.
        said: String,
    },
    /// To [`HostCall::CopyStatus`].
    Copy {
        /// How far it is.
        status: CopyStatus,
    },
    /// To [`HostCall::Stop`].
    Stopped {
        /// When the VM stopped, in microseconds since 1970 by that host's clock, if it was seen.
        at_us: Option<u64>,
    },
    /// To [`HostCall::Resume`].
    Resumed {
        /// When the VM ran, in microseconds since 1970 by that host's clock, if it was seen.
        at_us: Option<u64>,
    },
    /// To [`HostCall::Cross`].
    Crossed {
        /// What became of it.
        crossing: Crossing,
    },
}

/// How the stream of a copy goes. Both ends must be told the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Streams {
    /// Over one connection, as it is.
    #[default]
    Plain,
    /// Compressed by zstd.
    Zstd,
    /// As it is; what is left may follow when the VM has crossed.
    Postcopy,
}

/// How far a copy is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CopyStatus {
    /// State by QEMU's name, for example `active`, `pre-switchover`.
    pub state: String,
    /// QEMU's reason, if it failed.
    pub error: Option<String>,
    /// Bytes of memory.
    pub total: u64,
    /// Bytes sent.
    pub transferred: u64,
    /// Bytes still to be sent in this pass.
    pub remaining: u64,
    /// Bytes that the guest dirties per second.
    pub dirty_rate: u64,
    /// Bytes sent per second.
    pub bandwidth: u64,
    /// Passes over the memory.
    pub passes: u64,
    /// What the downtime would be now, in milliseconds, if nothing were compressed.
    pub expected_downtime_ms: Option<u64>,
    /// Bytes of memory that went over in each hundred bytes sent; 0 counts as 100.
    #[serde(default)]
    pub ratio_percent: u64,
    /// How far the VM is slowed down, in percent.
    #[serde(default)]
    pub throttle: u8,
}

impl CopyStatus {
    /// An amount of memory, or a time that QEMU expects for it without counting on compression, as
    /// it is compressed.
    pub fn compressed(&self, amount: u64) -> u64 {
        amount.saturating_mul(100) / self.ratio_percent.max(100)
    }

    /// How long memory takes to be sent at a number of bytes sent per second, in milliseconds.
    pub fn sending_ms(&self, memory: u64, bandwidth: u64) -> u64 {
        self.compressed(memory).saturating_mul(1000) / bandwidth.max(1)
    }
}

/// What became of a VM that was let cross.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "crossing", rename_all = "kebab-case")]
pub enum Crossing {
    /// The source has completed: everything is at the destination.
    Completed {
        /// As QEMU counts it.
        downtime_ms: Option<u64>,
        /// Bytes in all.
        transferred: u64,
        /// Passes over the memory.
        passes: u64,
    },
    /// The VM is the destination's to run; the rest of its memory follows.
    Postcopy {
        /// How far that is.
        copy: CopyStatus,
    },
    /// The migration failed, and the VM runs at the source.
    Stayed {
        /// QEMU's reason.
        reason: String,
    },
}

/// Why a host did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum HostError {
    /// It cannot be reached, or the answer was lost.
    #[error("host {host}: {reason}")]
    Unreachable {
        /// Which.
        host: HostName,
        /// Why.
        reason: String,
    },
    /// It refuses before anything was changed.
    #[error("{0}")]
    Denied(Denial),
    /// It tried and could not.
    #[error("host {host}: {reason}")]
    Failed {
        /// Which.
        host: HostName,
        /// Operation, operand, and why.
        reason: String,
    },
    /// The VM's QEMU there has ended, and nobody can do what was asked of it.
    #[error("host {host}: the QEMU of {vm} has ended: {how}")]
    Gone {
        /// Which host.
        host: HostName,
        /// Which VM.
        vm: VmName,
        /// Whether the VM may have run in it.
        ran: bool,
        /// What it printed last.
        how: String,
    },
}

/// A host, this one or a peer.
pub trait Host: Send + Sync {
    /// Asks the host. The caller bounds the wait where the call does not.
    fn call(&self, call: HostCall) -> BoxFuture<'_, Result<HostReply, HostError>>;
}

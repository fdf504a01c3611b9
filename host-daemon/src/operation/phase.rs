//! The phases of an operation, in the order of [`super::state`]'s diagram.

use serde::{Deserialize, Serialize};

/// Where an operation is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Change transports where the gang is.
    Switch,
    /// Start the destination's QEMUs, which wait for the stream.
    Prepare,
    /// Move the job to transports that need no HCA, while it runs.
    LeaveHca,
    /// Stop the job's communication with nothing in flight, and let go of the HCAs.
    Hold,
    /// See that nobody holds a verbs device.
    CheckHolders,
    /// Unplug the HCAs.
    Unplug,
    /// Copy all VMs, until every one is ready to switch over and stands before it.
    Copy,
    /// Hold the job while its VMs are copied: they dirty memory faster than it is copied.
    HoldLate,
    /// Copy on, while the job is held.
    CopyHeld,
    /// Let every VM cross. The point of no return.
    SwitchOver,
    /// Wait until the memory has followed of VMs that crossed before it.
    Postcopy,
    /// Plug HCAs at the destination.
    Plug,
    /// Wait until their ports are active and their addresses settled.
    AwaitLink,
    /// Move the job onto the HCAs, while it runs.
    TakeHca,
    /// Give held ranks a transport again, the best there is.
    Rebuild,
    /// Give held ranks a transport that needs no HCA.
    RebuildFallback,
    /// End the source's QEMUs, give back what was claimed.
    CleanUp,
    /// Rollback: end the copying; the VMs run at the source.
    CancelCopy,
    /// Rollback: end the destination's QEMUs.
    Discard,
    /// Rollback: plug the HCAs at the source.
    PlugBack,
    /// Rollback: wait for their links.
    AwaitLinkBack,
    /// Rollback: move the job back to the interconnect it was on.
    TakeBack,
    /// Rollback: give held ranks the interconnect they had.
    RebuildBack,
    /// Rollback: give held ranks a transport that needs no HCA.
    RebuildBackFallback,
    /// Ended as asked.
    Done,
    /// Ended as if never begun.
    RolledBack,
    /// Ended; the job runs, on less than it was to have.
    Degraded,
    /// Ended; somebody has to act, the reason says how.
    NeedsOperator,
}

impl Phase {
    /// Whether the operation has ended.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Done | Self::RolledBack | Self::Degraded | Self::NeedsOperator
        )
    }

    /// Whether it belongs to a rollback.
    pub fn is_rollback(self) -> bool {
        matches!(
            self,
            Self::CancelCopy
                | Self::Discard
                | Self::PlugBack
                | Self::AwaitLinkBack
                | Self::TakeBack
                | Self::RebuildBack
                | Self::RebuildBackFallback
        )
    }

    /// Whether a cancel still has an effect.
    pub fn can_cancel(self) -> bool {
        matches!(
            self,
            Self::Switch
                | Self::Prepare
                | Self::LeaveHca
                | Self::Hold
                | Self::CheckHolders
                | Self::Unplug
                | Self::Copy
                | Self::HoldLate
                | Self::CopyHeld
        )
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Switch => "switch",
            Self::Prepare => "prepare",
            Self::LeaveHca => "leave-hca",
            Self::Hold => "hold",
            Self::CheckHolders => "check-holders",
            Self::Unplug => "unplug",
            Self::Copy => "copy",
            Self::HoldLate => "hold-late",
            Self::CopyHeld => "copy-held",
            Self::SwitchOver => "switch-over",
            Self::Postcopy => "postcopy",
            Self::Plug => "plug",
            Self::AwaitLink => "await-link",
            Self::TakeHca => "take-hca",
            Self::Rebuild => "rebuild",
            Self::RebuildFallback => "rebuild-fallback",
            Self::CleanUp => "clean-up",
            Self::CancelCopy => "cancel-copy",
            Self::Discard => "discard",
            Self::PlugBack => "plug-back",
            Self::AwaitLinkBack => "await-link-back",
            Self::TakeBack => "take-back",
            Self::RebuildBack => "rebuild-back",
            Self::RebuildBackFallback => "rebuild-back-fallback",
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
            Self::Degraded => "degraded",
            Self::NeedsOperator => "needs-operator",
        };
        f.pad(name)
    }
}

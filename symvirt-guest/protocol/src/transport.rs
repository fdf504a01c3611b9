//! The transports that a gang is asked to use.
//!
//! The coordinator names an [`Interconnect`]; the agent of each guest turns it into the
//! [`Transports`] that its ranks hand to UCX, because only the guest knows its device names.

use serde::{Deserialize, Serialize};

/// What a switch aims at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Interconnect {
    /// What the job was started with: UCX chooses, an HCA included (*recovery*).
    Native,
    /// Everything but HCAs and the network devices that sit on them (*fallback*).
    Fallback,
    /// Exactly these, in every guest (`rehearse`).
    Explicit(Transports),
}

/// UCX configuration of one context, as `UCX_TLS` and `UCX_NET_DEVICES` would give it.
/// `None` keeps what the job's own environment says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Transports {
    /// Value for `TLS`, for example `tcp,self,sm`.
    pub tls: Option<String>,
    /// Value for `NET_DEVICES`, for example `eth0`. Set it whenever `tls` is set: an inherited
    /// `rxe0:1` gives a tcp context without tcp.
    pub net_devices: Option<String>,
}

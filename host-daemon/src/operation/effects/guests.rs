//! What the guests of a gang are asked, and what they answer.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use symvirt_protocol::agent::DeviceReport;

use super::super::plan::Target;
use super::super::report::RankStall;
use crate::config::{HostName, VmName};

/// How a switch of transports ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Switched {
    /// How long each rank stood still.
    pub stalls: Vec<RankStall>,
}

/// How the ranks stand that a broken switch has left. They are never apart: all change over, or
/// none does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Left {
    /// As before.
    #[error("the other ranks are as they were")]
    Before,
    /// As asked for.
    #[error("the other ranks have changed over")]
    After,
    /// They stand still, without transports.
    #[error("the other ranks are held")]
    Held,
    /// Not all of them have answered.
    #[error("not all other ranks have answered; if the job has not ended, end it")]
    Unknown,
}

/// Why a switch of transports did not end as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SwitchFailure {
    /// Given up on all ranks, without effect.
    #[error("{0}; the ranks are on the transports they were on")]
    Aborted(String),
    /// The gang is not whole any more.
    #[error("{reason}; {left}")]
    Broken {
        /// Why.
        reason: String,
        /// What has become of the others.
        left: Left,
    },
    /// It could not be begun.
    #[error("{0}")]
    Refused(String),
}

/// Where a gang stands when another host takes it over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandOver {
    /// Switches of its transports so far.
    pub epoch: u64,
    /// What it communicates over.
    pub interconnect: Target,
    /// Guests whose agents were heard.
    pub agents: Vec<VmName>,
}

/// How a gang stands once nothing that an earlier coordinator began is under way any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// What it communicates over, or did before it was held.
    pub interconnect: Target,
    /// Its ranks stand still, without transports: only a rebuild helps them.
    pub held: bool,
    /// It has ranks.
    pub ranks: bool,
}

impl Standing {
    /// Whether nothing is to be done to bring it there.
    pub fn is_on(&self, to: Target) -> bool {
        !self.held && self.interconnect == to
    }
}

/// The guests of one gang.
pub trait Guests: Send + Sync {
    /// Meets the agents of `vms` after an earlier coordinator, of this host or another, has died
    /// or handed over, and settles the switch that it may have left half-way: it is undone on all
    /// ranks, or goes on to its end on all. To be called before anything else is asked of them.
    /// Waits for agents at most `limit`, and as long again for their ranks. Can be repeated.
    ///
    /// # Errors
    /// [`SwitchFailure::Broken`]: ranks were lost in mid-switch; or, with [`Left::Unknown`], how it
    /// ends depends on a guest that was not heard. Nothing has changed then: to be repeated, without
    /// the guest if its VM is lost.
    fn recover(
        &self,
        vms: &[VmName],
        limit: Duration,
    ) -> BoxFuture<'_, Result<Standing, SwitchFailure>>;
    /// Moves running ranks to other transports, make-before-break.
    fn switch(&self, to: Target, limit: Duration)
    -> BoxFuture<'_, Result<Switched, SwitchFailure>>;
    /// Stops the ranks and lets their transports go.
    fn hold(&self, limit: Duration) -> BoxFuture<'_, Result<Switched, SwitchFailure>>;
    /// Gives held ranks transports again.
    fn rebuild(
        &self,
        to: Target,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Switched, SwitchFailure>>;
    /// Gives up the switch or rebuild under way if that is still possible.
    fn abort(&self);
    /// Slows running ranks down by so many percent, all in the same beat; 0 ends it, as does some
    /// time in which it is not repeated.
    fn slow_down(&self, percent: u8);
    /// Guests whose agents owe an answer, and of which nothing was heard for some time.
    fn silent(&self) -> Vec<VmName>;
    /// The guest's devices as its agent last reported them, `None` before the first report and
    /// after [`Guests::ask_devices`].
    fn devices(&self, vm: &VmName) -> Option<DeviceReport>;
    /// Forgets the guest's last report and asks its agent for another.
    fn ask_devices(&self, vm: &VmName);
    /// Lets the guests' kernels forget files that they can read again, and waits for that at most
    /// `limit`; by how many bytes each page cache has shrunk, of those whose agents have answered.
    fn drop_cache(&self, limit: Duration) -> BoxFuture<'_, BTreeMap<VmName, u64>>;
    /// The first rank that died since the gang was held, as an operator would look for it.
    fn died_held(&self) -> Option<String>;
    /// Closes all channels, for another host to coordinate the gang from now on, and says where
    /// it stands: its epoch and its interconnect.
    fn hand_over(&self) -> BoxFuture<'_, HandOver>;
    /// From now on the guest is reached on `host`.
    fn moved(&self, vm: &VmName, host: &HostName);
    /// The VM is no more, and its ranks with it.
    fn lost(&self, vm: &VmName);
}

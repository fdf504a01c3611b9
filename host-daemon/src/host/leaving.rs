//! What a source does: copy a VM, let it cross, or keep it.

use std::sync::Arc;
use std::time::Duration;

use symvirt_qmp::migration::{
    Cancelled, Endpoint, MigrateError, Outgoing, Progress, Status, query,
};
use symvirt_qmp::{Client, commands};
use tracing::info;

use super::LocalHost;
use super::arriving::micros;
use super::machine::{Machine, Role};
use super::streams::Source;
use crate::api::error::chain;
use crate::config::{HostName, VmName};
use crate::operation::effects::{CopyStatus, Crossing, HostError, HostReply};
use crate::vm::credentials;

/// Interval at which QEMU is asked for numbers; changes of state come by themselves.
const NUMBERS: Duration = Duration::from_millis(100);
/// For a cancel to take effect.
const CANCELLING: Duration = Duration::from_secs(30);
/// How errors name the other end of a copy that an earlier daemon began.
const EARLIER: &str = "the destination of an earlier daemon";

impl LocalHost {
    pub(super) async fn start_copy(
        &self,
        vm: &VmName,
        to: &HostName,
        uri: String,
        source: Source,
    ) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        if machine.role() != Role::Own {
            return Err(self.failure(format!("{vm} is not a VM that runs here")));
        }
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let mut settings = source.settings();
        let end = credentials::End::Client(to);
        self.secure(&client, &machine, end, &mut settings).await?;
        let started = Outgoing::start(&client, &Endpoint::Uri(uri), &settings, NUMBERS).await;
        let outgoing = started.map_err(|error| self.failed(&error))?;
        *machine.outgoing() = Some(Arc::new(outgoing));
        Ok(HostReply::Done)
    }

    fn outgoing_of(&self, vm: &VmName) -> Result<(Arc<Machine>, Arc<Outgoing>), HostError> {
        let machine = self.machine(vm)?;
        let outgoing = machine.outgoing().clone();
        match outgoing {
            Some(outgoing) => Ok((machine, outgoing)),
            None => Err(self.failure(format!("no copy of {vm} was begun"))),
        }
    }

    pub(super) fn copy_status(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let (_, outgoing) = self.outgoing_of(vm)?;
        let progress = outgoing.progress().borrow().clone();
        Ok(HostReply::Copy {
            status: status(&progress),
        })
    }

    pub(super) async fn pace(&self, vm: &VmName, bandwidth: u64) -> Result<HostReply, HostError> {
        let (_, outgoing) = self.outgoing_of(vm)?;
        outgoing
            .set_bandwidth(bandwidth)
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(HostReply::Done)
    }

    /// Stops a VM that is copied, so that the rest can be sent: as fast as it goes, as QEMU sends
    /// the rest of a VM that it stops itself.
    pub(super) async fn stop_for_crossing(
        &self,
        vm: &VmName,
        postcopy: Option<u64>,
    ) -> Result<HostReply, HostError> {
        let (_, outgoing) = self.outgoing_of(vm)?;
        if let Some(bandwidth) = postcopy {
            let begun = outgoing.start_postcopy(bandwidth).await;
            begun.map_err(|error| self.failed(&error))?;
        }
        let stopped = outgoing.stop_machine().await;
        let at = stopped.map_err(|error| self.failed(&error))?;
        let hurried = outgoing.set_bandwidth(0).await;
        hurried.map_err(|error| self.failed(&error))?;
        Ok(HostReply::Stopped {
            at_us: at.as_ref().map(micros),
        })
    }

    /// Ends the copy; the VM runs here when this returns.
    pub(super) async fn cancel_copy(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        if matches!(machine.role(), Role::Serving | Role::Crossed) {
            return Err(self.failure(format!("{vm} has crossed")));
        }
        let known = machine.outgoing().clone();
        let outgoing = match known {
            Some(outgoing) => Some(outgoing),
            None => self.left_behind(&machine).await?.map(Arc::new),
        };
        if let Some(outgoing) = outgoing {
            match outgoing.cancel(CANCELLING).await {
                Ok(Cancelled::StillHere) => {}
                Ok(Cancelled::Moved) => {
                    return Err(self.failure(format!("{vm} has completed its migration")));
                }
                Err(error) => return Err(self.failed(&error)),
            }
            machine.outgoing().take();
        }
        self.see_it_run(&machine).await?;
        Ok(HostReply::Done)
    }

    /// A copy that an earlier daemon has begun and that goes on.
    async fn left_behind(&self, machine: &Machine) -> Result<Option<Outgoing>, HostError> {
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let progress = query(&client).await.map_err(|error| self.failed(&error))?;
        if progress.is_over() || progress.status == Status::none {
            return Ok(None);
        }
        self.attach(&client).await.map(Some)
    }

    /// Takes over a copy that an earlier daemon has begun.
    async fn attach(&self, client: &Client) -> Result<Outgoing, HostError> {
        let to = Endpoint::Uri(EARLIER.into());
        let attached = Outgoing::attach(client, &to, NUMBERS).await;
        attached.map_err(|error| self.failed(&error))
    }

    pub(super) async fn see_it_run(&self, machine: &Machine) -> Result<(), HostError> {
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let status = client.execute(commands::query_status {}).await;
        if !status.map_err(|error| self.failed(&error))?.running {
            client
                .execute(commands::cont {})
                .await
                .map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    /// Lets a VM cross and waits until it has, or runs here again.
    pub(super) async fn cross(&self, vm: &VmName, limit_ms: u64) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        if machine.role() == Role::Crossed {
            let known = machine.outgoing().clone();
            let progress = known.map(|outgoing| outgoing.progress().borrow().clone());
            return Ok(crossed(progress.as_ref()));
        }
        let outgoing = self.copy_of(&machine).await?;
        let before = outgoing.progress().borrow().status;
        if before == Status::pre_switchover {
            outgoing
                .continue_switchover()
                .await
                .map_err(|error| self.failed(&error))?;
        }
        let limit = Duration::from_millis(limit_ms);
        if machine.role() == Role::Serving {
            return self.follow(&machine, &outgoing, limit).await;
        }
        let crossing = match outgoing.wait_for_crossing(limit).await {
            Ok(progress) if progress.is_over() => return self.completed(&machine, &progress),
            Ok(progress) => {
                machine
                    .set_role(Role::Serving)
                    .map_err(|error| self.failed(&error))?;
                info!(%vm, "VM has crossed, and the rest of its memory follows");
                let copy = status(&progress);
                Crossing::Postcopy { copy }
            }
            Err(error @ (MigrateError::Failed { .. } | MigrateError::Cancelled { .. })) => {
                self.see_it_run(&machine).await?;
                machine.outgoing().take();
                Crossing::Stayed {
                    reason: chain(&error),
                }
            }
            Err(error) => return Err(self.failed(&error)),
        };
        Ok(HostReply::Crossed { crossing })
    }

    /// All of a VM is at the destination.
    pub(super) fn completed(
        &self,
        machine: &Machine,
        progress: &Progress,
    ) -> Result<HostReply, HostError> {
        machine
            .set_role(Role::Crossed)
            .map_err(|error| self.failed(&error))?;
        info!(vm = %machine.spec.name, "VM has crossed");
        Ok(crossed(Some(progress)))
    }

    /// The copy of a VM that is about to cross; if an earlier daemon began it, what has become of
    /// it.
    pub(super) async fn copy_of(&self, machine: &Machine) -> Result<Arc<Outgoing>, HostError> {
        let known = machine.outgoing().clone();
        if let Some(outgoing) = known {
            return Ok(outgoing);
        }
        let client = machine
            .client()
            .await
            .map_err(|error| self.failed(&error))?;
        let outgoing = Arc::new(self.attach(&client).await?);
        *machine.outgoing() = Some(outgoing.clone());
        Ok(outgoing)
    }

    /// Runs a VM that has crossed to a QEMU which ended before it ran: all of it is still here.
    pub(super) async fn reclaim(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let machine = self.machine(vm)?;
        if machine.role() == Role::Serving {
            return Err(self.failure(format!("QEMU has let go of {vm} for good")));
        }
        machine
            .set_role(Role::Own)
            .map_err(|error| self.failed(&error))?;
        machine.outgoing().take();
        self.see_it_run(&machine).await?;
        info!(%vm, "VM runs here again");
        Ok(HostReply::Done)
    }

    /// Ends the QEMU of a VM that has crossed.
    pub(super) async fn retire(&self, vm: &VmName) -> Result<HostReply, HostError> {
        let Some(machine) = self.machines().get(vm).cloned() else {
            return Ok(HostReply::Done);
        };
        if machine.role() != Role::Crossed {
            return Err(self.failure(format!("{vm} has not crossed")));
        }
        self.end(&machine).await?;
        self.forget_empty(&machine.spec.gang);
        Ok(HostReply::Done)
    }
}

/// A VM has crossed; `None` if that was an earlier daemon's doing.
fn crossed(progress: Option<&Progress>) -> HostReply {
    HostReply::Crossed {
        crossing: Crossing::Completed {
            downtime_ms: progress.and_then(|progress| progress.downtime).map(millis),
            transferred: progress.map_or(0, |progress| progress.transferred),
            passes: progress.map_or(0, |progress| progress.passes),
        },
    }
}

pub(super) fn status(progress: &Progress) -> CopyStatus {
    CopyStatus {
        state: state(progress.status),
        error: progress.error.clone(),
        total: progress.total,
        transferred: progress.transferred,
        remaining: progress.remaining,
        dirty_rate: progress.dirty_rate,
        bandwidth: progress.throughput,
        passes: progress.passes,
        expected_downtime_ms: progress.expected_downtime.map(millis),
        // Truncation to whole percent is intended.
        ratio_percent: (progress.ratio * 100.0) as u64,
        throttle: progress.throttle,
    }
}

/// QEMU's name of a state.
fn state(status: Status) -> String {
    match serde_json::to_value(status) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{status:?}"),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

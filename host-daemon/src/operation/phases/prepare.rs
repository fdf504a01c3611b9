//! The destination's QEMUs: start them, end them; and the end of the source's.

use super::{Crew, Outcome};
use crate::api::error::chain;
use crate::operation::convergence::streams;
use crate::operation::effects::{HandOver, HostCall, HostReply};
use crate::operation::plan::VmPlan;
use crate::operation::report::VmReport;
use crate::retry::wanted;

/// How often the destination is asked to coordinate the gang.
const ADOPTING: u32 = 3;

impl Crew {
    pub(super) async fn prepare(&self) -> Outcome {
        self.fresh_counters().await;
        for vm in &self.plan.vms {
            let before = self.traffic(&vm.vm);
            let mut entry = VmReport::new(vm.vm.clone(), Some(vm.source.clone()));
            entry.before = before;
            let mut measured = self.measured();
            measured.report.vms.retain(|known| known.vm != vm.vm);
            measured.report.vms.push(entry);
        }
        self.check_strangers().await?;
        self.doing("starting the destination's QEMUs");
        self.wait_at_destination().await
    }

    /// Starts the destination's QEMUs and remembers where they wait.
    pub(super) async fn wait_at_destination(&self) -> Outcome {
        let operation = &self.plan.id;
        let streams = streams(self.plan.limits());
        let replies = self
            .each(&self.destination, self.plan.vms.iter(), |vm| {
                HostCall::Prepare {
                    operation: operation.clone(),
                    vm: vm.vm.clone(),
                    streams,
                }
            })
            .await?;
        for (vm, reply) in replies {
            let HostReply::Waiting { uri } = reply else {
                return Err(format!("{vm}: the destination did not say where it waits"));
            };
            self.measured().uris.insert(vm, uri);
        }
        Ok(())
    }

    pub(super) async fn discard(&self) -> Outcome {
        let discarded = self.discard_at_destination(self.plan.vms.iter()).await;
        let operation = self.plan.id.clone();
        let released = self.destination.call(HostCall::Release { operation }).await;
        discarded?;
        released.map(|_| ()).map_err(|error| chain(&error))
    }

    /// Ends the destination's QEMUs of `vms`.
    pub(super) async fn discard_at_destination<'a>(
        &self,
        vms: impl Iterator<Item = &'a VmPlan>,
    ) -> Outcome {
        let operation = &self.plan.id;
        let calls = self.each(&self.destination, vms, |vm| HostCall::Discard {
            operation: operation.clone(),
            vm: vm.vm.clone(),
        });
        calls.await.map(|_| ()).map_err(|reason| {
            format!(
                "{reason}; QEMUs that wait there run nothing, `symvirt vm stop` on that host ends \
                 them"
            )
        })
    }

    pub(super) async fn clean_up(&self) -> Outcome {
        self.fresh_counters().await;
        for vm in &self.plan.vms {
            let after = self.traffic(&vm.vm);
            self.vm_report(&vm.vm, |entry| entry.after = after);
        }
        let state = self.shown.borrow().state.clone();
        let moved = self.plan.vms.iter().filter(|vm| state.has_arrived(&vm.vm));
        let moved: Vec<_> = moved.cloned().collect();
        let retired = self
            .each(&self.source, moved.iter(), |vm| HostCall::Retire {
                vm: vm.vm.clone(),
            })
            .await
            .map_err(|reason| {
                let names: Vec<_> = moved.iter().map(|vm| vm.vm.as_str()).collect();
                format!(
                    "{reason}; end the source's QEMUs, which are not to run again, by \
                     `symvirt vm stop {}` on the source",
                    names.join(" ")
                )
            });
        // Not those of which it is unknown where they run: theirs may be the only copy.
        let stayed = |vm: &&VmPlan| state.stayed.contains(&vm.vm);
        let left_waiting = self.plan.vms.iter().filter(stayed);
        let discarded = self.discard_at_destination(left_waiting).await;
        if moved.len() == self.plan.vms.len() {
            self.hand_over().await;
        }
        let operation = self.plan.id.clone();
        let released = self.destination.call(HostCall::Release { operation }).await;
        retired?;
        discarded?;
        released.map(|_| ()).map_err(|error| chain(&error))
    }

    /// The destination coordinates a gang that has moved as a whole. A failure leaves the job as
    /// it is: a daemon takes up the guests on its host when it starts.
    async fn hand_over(&self) {
        let wish = wanted(&self.plan, &self.shown.borrow().state);
        let HandOver {
            epoch,
            interconnect,
            agents,
        } = self.guests.hand_over().await;
        let call = HostCall::Adopt {
            operation: self.plan.id.clone(),
            gang: self.plan.request.gang().clone(),
            epoch,
            interconnect,
            agents,
            wish: wish.clone(),
        };
        let mut last = None;
        for _ in 0..ADOPTING {
            match self.destination.call(call.clone()).await {
                Ok(_) => {
                    if let (Some(_), Some(host)) = (wish, self.destination_name()) {
                        self.note(format!(
                            "{host} moves the job onto its HCAs as soon as that is possible; \
                             `symvirt status` there shows it"
                        ));
                    }
                    return;
                }
                Err(error) => last = Some(chain(&error)),
            }
        }
        self.note(format!(
            "the destination does not coordinate the gang yet ({}): restart symvirtd there",
            last.unwrap_or_default()
        ));
    }
}

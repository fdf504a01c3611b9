//! HCAs and what the guests say about them.

use std::collections::BTreeMap;
use std::time::Duration;

use symvirt_protocol::agent::{DeviceReport, Holder};
use tokio::time::{Instant, sleep};

use super::{Crew, Outcome};
use crate::config::VmName;
use crate::operation::effects::HostCall;
use crate::operation::phase::Phase;
use crate::operation::plan::VmPlan;

/// Interval at which reports are looked at; agents send them when something changes.
const LOOK: Duration = Duration::from_millis(50);
/// After a report, before the next is asked for: making one costs an emulated guest a good part of
/// a second.
const ASK: Duration = Duration::from_millis(500);
/// Before a report that does not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// For the first report of a guest, however busy it is.
const REPORTING: Duration = Duration::from_secs(30);
/// How long a process may take to close a verbs device that it is about to let go of.
const LETTING_GO: Duration = Duration::from_secs(5);
/// How long a GID table must not change to count as settled.
const SETTLED: Duration = Duration::from_secs(1);

impl Crew {
    /// A process that is no rank, and holds a verbs device that is to go, would stop the operation
    /// later, after the job was moved off its HCA: better now.
    pub(super) async fn check_strangers(&self) -> Outcome {
        let stranger = |holder: &Holder| !holder.rank;
        let held = |vm: &&VmPlan| {
            let report = self.guests.devices(&vm.vm);
            report.is_some_and(|report| !holders(&report, stranger).is_empty())
        };
        let with = self.plan.vms.iter().filter(|vm| vm.source_hca.is_some());
        self.let_go(with.filter(held), stranger).await
    }

    /// Nobody may hold a verbs device that is about to go.
    pub(super) async fn check_holders(&self) -> Outcome {
        let with = |vm: &&VmPlan| vm.source_hca.is_some() && !self.is_lost(&vm.vm);
        self.let_go(self.plan.vms.iter().filter(with), |_| true)
            .await
    }

    /// None of these holders has a verbs device of these VMs, or soon none has. What looks like a
    /// stranger may be a rank, to an agent that has begun anew: it looks for its agent every second.
    async fn let_go<'a>(
        &self,
        vms: impl Iterator<Item = &'a VmPlan>,
        who: impl Fn(&Holder) -> bool,
    ) -> Outcome {
        self.doing("asking the guests who holds their verbs devices");
        let mut asked: Vec<_> = vms.map(|vm| Asked::now(self, &vm.vm)).collect();
        let began = Instant::now();
        let mut seen: BTreeMap<VmName, Instant> = BTreeMap::new();
        while !asked.is_empty() {
            let mut waiting = Vec::new();
            for mut ask in asked {
                let report = self.guests.devices(&ask.vm);
                match report.as_ref().map(|report| holders(report, &who)) {
                    Some(holders) if holders.is_empty() => continue,
                    Some(holders) => {
                        let since = *seen.entry(ask.vm.clone()).or_insert_with(Instant::now);
                        if since.elapsed() >= LETTING_GO {
                            return Err(held(&ask.vm, &holders));
                        }
                    }
                    None if began.elapsed() >= REPORTING => {
                        return Err(format!(
                            "the agent of {} does not report its devices",
                            ask.vm
                        ));
                    }
                    None => {}
                }
                ask.again_if_due(self, report.is_some());
                waiting.push(ask);
            }
            asked = waiting;
            if !asked.is_empty() {
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    pub(super) async fn unplug(&self) -> Outcome {
        self.doing("waiting for the guests to let go of their HCAs");
        let limit = self.plan.limits().unplug();
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let with = self.plan.vms.iter().filter(|vm| vm.source_hca.is_some());
        self.each(&self.source, with, |vm| HostCall::Unplug {
            vm: vm.vm.clone(),
            limit_ms,
        })
        .await
        .map(|_| ())
    }

    pub(super) async fn plug(&self) -> Outcome {
        self.doing("plugging HCAs at the destination");
        let with = self.plan.vms.iter();
        let calls = with.filter_map(|vm| {
            let hca = vm.destination_hca.clone()?;
            Some((vm.clone(), hca))
        });
        let calls: Vec<_> = calls.collect();
        self.each(&self.destination, calls.iter().map(|(vm, _)| vm), |vm| {
            HostCall::Plug {
                vm: vm.vm.clone(),
                hca: vm
                    .destination_hca
                    .clone()
                    .expect("invariant: filtered above"),
            }
        })
        .await
        .map(|_| ())
    }

    pub(super) async fn plug_back(&self) -> Outcome {
        self.doing("plugging the HCAs back at the source");
        let with: Vec<_> = self
            .plan
            .vms
            .iter()
            .filter(|vm| vm.source_hca.is_some())
            .cloned()
            .collect();
        self.each(&self.source, with.iter(), |vm| HostCall::Plug {
            vm: vm.vm.clone(),
            hca: vm.source_hca.clone().expect("invariant: filtered above"),
        })
        .await
        .map(|_| ())
    }

    /// Every VM that was given an HCA must show an active port whose GIDs have settled.
    pub(super) async fn await_link(&self, phase: Phase) -> Outcome {
        if !(self.plan.ranks || phase == Phase::AwaitLink && self.plan.takes_hca()) {
            // Nobody is to be moved onto it, and perhaps no agent could tell.
            return Ok(());
        }
        let limit = self.plan.limits().link();
        let deadline = Instant::now() + limit;
        let back = phase == Phase::AwaitLinkBack;
        let given = |vm: &&VmPlan| match back {
            true => vm.source_hca.is_some(),
            false => vm.destination_hca.is_some(),
        };
        for vm in self.plan.vms.iter().filter(given) {
            self.doing(format!(
                "the job runs; waiting for the link of {}'s HCA",
                vm.vm
            ));
            let mut seen: Option<(Vec<String>, Instant)> = None;
            let mut ask = Asked::now(self, &vm.vm);
            while !self.is_lost(&vm.vm) {
                let report = self.guests.devices(&vm.vm);
                match report.as_ref().and_then(active_gids) {
                    Some(gids) => match &seen {
                        Some((same, since)) if *same == gids => {
                            if since.elapsed() >= SETTLED {
                                break;
                            }
                        }
                        _ => seen = Some((gids, Instant::now())),
                    },
                    None if report.is_some() => seen = None,
                    None => {}
                }
                if Instant::now() >= deadline {
                    return Err(format!(
                        "{}: no active port with settled GIDs after {} s: {}",
                        vm.vm,
                        limit.as_secs(),
                        describe(report.as_ref())
                    ));
                }
                ask.again_if_due(self, report.is_some());
                sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// A guest that was asked for a report of its devices.
struct Asked {
    vm: VmName,
    at: Instant,
    answered: Option<Instant>,
}

impl Asked {
    fn now(crew: &Crew, vm: &VmName) -> Self {
        crew.guests.ask_devices(vm);
        Self {
            vm: vm.clone(),
            at: Instant::now(),
            answered: None,
        }
    }

    /// Asks again some time after an answer, or if none comes. Asking more often would only keep
    /// the guest from answering.
    fn again_if_due(&mut self, crew: &Crew, answered: bool) {
        if answered {
            self.answered.get_or_insert_with(Instant::now);
        }
        let due = match self.answered {
            Some(answered) => answered.elapsed() >= ASK,
            None => self.at.elapsed() >= ASK_AGAIN,
        };
        if due {
            *self = Self::now(crew, &self.vm);
        }
    }
}

fn holders(report: &DeviceReport, who: impl Fn(&Holder) -> bool) -> Vec<(String, Holder)> {
    let devices = report.verbs.iter();
    let holders = devices.flat_map(|device| {
        let of_device = device.holders.iter();
        of_device.map(|holder| (device.name.clone(), holder.clone()))
    });
    holders.filter(|(_, holder)| who(holder)).collect()
}

fn held(vm: &VmName, holders: &[(String, Holder)]) -> String {
    let who: Vec<_> = holders
        .iter()
        .map(|(device, holder)| {
            let kind = if holder.rank {
                "a rank"
            } else {
                "no rank of the gang"
            };
            format!(
                "{} (pid {}, {kind}) holds {device}",
                holder.program, holder.pid
            )
        })
        .collect();
    format!(
        "in {vm} {}; end it, or let it close the device, and try again",
        who.join(", ")
    )
}

/// The GIDs of the first device with an active port, in order; `None` without one.
pub fn active_gids(report: &DeviceReport) -> Option<Vec<String>> {
    let port = report
        .verbs
        .iter()
        .flat_map(|device| &device.ports)
        .find(|port| port.active)?;
    (!port.gids.is_empty()).then(|| port.gids.clone())
}

fn describe(report: Option<&DeviceReport>) -> String {
    let Some(report) = report else {
        return "its agent reports nothing".into();
    };
    let ports: Vec<_> = report
        .verbs
        .iter()
        .flat_map(|device| device.ports.iter().map(move |port| (device, port)))
        .map(|(device, port)| {
            format!(
                "{} port {} is {}, {} GIDs",
                device.name,
                port.number,
                port.state,
                port.gids.len()
            )
        })
        .collect();
    if ports.is_empty() {
        "it has no verbs device".into()
    } else {
        ports.join(", ")
    }
}

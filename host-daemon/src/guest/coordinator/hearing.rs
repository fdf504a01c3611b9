//! What a guest's channel tells the coordinator: messages for the gang, what is to be shown of the
//! agent, and that it is silent.

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::gang::GuestId;
use symvirt_protocol::link::Received;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::super::channel::{Heard, News};
use super::super::handle::{AgentView, GangView};
use super::{Coordinator, recovery};
use crate::config::VmName;

impl Coordinator {
    pub(super) fn hear(&mut self, heard: Heard) {
        let Heard { vm, news } = heard;
        if !self.guests.contains_key(&vm) {
            return;
        }
        self.note_silence(&vm, matches!(news, News::Silence));
        let News::Received(received) = news else {
            return;
        };
        match received {
            Received::Message(message) => {
                self.note(&vm, &message);
                if let (FromAgent::Hello { .. }, Some(attempt)) = (&message, &mut self.attempt) {
                    attempt.agent_returns();
                }
                let effects = self.gang.hear(&GuestId(vm.to_string()), message);
                self.carry_out(effects);
                if self.gang.is_unsettled() {
                    self.settle_at
                        .get_or_insert_with(|| Instant::now() + recovery::ORPHANED);
                }
            }
            Received::Session { peer } => {
                debug!(%vm, session = peer, "agent's session");
                self.send(&vm, ToAgent::ReportDevices);
            }
            Received::Resumed => debug!(%vm, "guest channel works"),
            Received::Malformed(error) => warn!(%vm, %error, "agent's message skipped"),
            Received::Version { theirs } => {
                let ours = symvirt_protocol::PROTOCOL_VERSION;
                let reason =
                    format!("it speaks protocol version {theirs}, this host version {ours}");
                self.view.send_modify(|view| {
                    let guest = view.guests.entry(vm.clone()).or_default();
                    if guest.agent != AgentView::Incompatible(reason.clone()) {
                        warn!(%vm, reason, "agent cannot be understood");
                        guest.agent = AgentView::Incompatible(reason);
                    }
                });
            }
        }
    }

    fn note_silence(&self, vm: &VmName, silent: bool) {
        let now = |view: &mut GangView| match view.guests.get_mut(vm) {
            Some(guest) => std::mem::replace(&mut guest.silent, silent) != silent,
            None => false,
        };
        if self.view.send_if_modified(now) && silent {
            warn!(%vm, "agent says nothing");
        }
    }

    fn note(&self, vm: &VmName, message: &FromAgent) {
        match message {
            FromAgent::Hello {
                guest,
                agent_version,
                ranks,
                ..
            } => {
                info!(%vm, guest, agent_version, ranks = ranks.len(), "agent says hello");
                self.view.send_modify(|view| {
                    view.guests.entry(vm.clone()).or_default().agent = AgentView::Present {
                        guest: short(guest),
                        version: short(agent_version),
                    };
                });
            }
            FromAgent::Devices(report) => self.view.send_modify(|view| {
                view.guests.entry(vm.clone()).or_default().devices = Some(report.clone());
            }),
            FromAgent::CacheDropped { bytes } => self.view.send_modify(|view| {
                view.guests.entry(vm.clone()).or_default().cache_dropped = Some(*bytes);
            }),
            FromAgent::Problem { message } => warn!(%vm, problem = short(message), "agent"),
            FromAgent::Ranks(_) | FromAgent::Ask { .. } | FromAgent::Gone { .. } => {}
        }
    }
}

/// A guest's word, as much of it as goes on a line.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

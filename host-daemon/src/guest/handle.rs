//! What the rest of the daemon sees of a gang.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use symvirt_protocol::agent::DeviceReport;
use tokio::sync::{mpsc, oneshot, watch};

use super::Connector;
use super::attempt::Begin;
use super::coordinator::{Command, Coordinator};
use crate::config::{GangName, HostName, VmName};
use crate::operation::Target;
use crate::operation::effects::{Guests, HandOver, Left, Standing, SwitchFailure, Switched};

/// How long channels may take to close.
const CLOSING: Duration = Duration::from_secs(2);

/// What is known of a gang.
#[derive(Clone, PartialEq, Debug)]
pub struct GangView {
    /// Its guests.
    pub guests: BTreeMap<VmName, GuestView>,
    /// Its members, as an operator would look for them.
    pub ranks: Vec<String>,
    /// Switches so far.
    pub epoch: u64,
    /// What it communicates over.
    pub interconnect: Target,
    /// Its ranks are held.
    pub held: bool,
    /// The first rank that died while the gang was held, since it was last to be held.
    pub died_held: Option<String>,
}

impl GangView {
    /// Guests that owe an answer, and of which nothing was heard for some time.
    pub fn silent(&self) -> Vec<VmName> {
        let silent = self.guests.iter().filter(|(_, guest)| guest.silent);
        silent.map(|(vm, _)| vm.clone()).collect()
    }
}

/// What is known of a guest.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GuestView {
    /// Its agent.
    pub agent: AgentView,
    /// The latest report of its devices.
    pub devices: Option<DeviceReport>,
    /// By how much its page cache has shrunk since it was last to be dropped, in bytes.
    pub cache_dropped: Option<u64>,
    /// It owes an answer, and nothing was heard of it for some time.
    pub silent: bool,
}

/// What is known of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AgentView {
    /// Nothing was heard of it.
    #[default]
    Silent,
    /// It said hello.
    Present {
        /// Host name of the guest, by its own account.
        guest: String,
        /// Version of the agent, by its own account.
        version: String,
    },
    /// It cannot be understood.
    Incompatible(String),
}

/// A gang. Clones share it; its channels close when the last one goes.
#[derive(Clone)]
pub struct Gang {
    commands: mpsc::UnboundedSender<Command>,
    view: Arc<watch::Sender<GangView>>,
}

impl Gang {
    /// A gang that is in `epoch`, on `interconnect`, with no guests yet.
    pub fn start(
        name: GangName,
        connector: Arc<dyn Connector>,
        epoch: u64,
        interconnect: Target,
    ) -> Self {
        let (commands, obeyed) = mpsc::unbounded_channel();
        let first = GangView {
            guests: BTreeMap::new(),
            ranks: Vec::new(),
            epoch,
            interconnect,
            held: false,
            died_held: None,
        };
        let view = Arc::new(watch::Sender::new(first));
        tokio::spawn(Coordinator::new(name, connector, view.clone(), obeyed).run());
        Self { commands, view }
    }

    /// What is known now.
    pub fn view(&self) -> GangView {
        self.view.borrow().clone()
    }

    /// Opens the channel of a guest on `home`; does nothing if it is open.
    pub fn attach(&self, vm: &VmName, home: &HostName) {
        self.tell(Command::Attach {
            vm: vm.clone(),
            home: home.clone(),
        });
    }

    /// Closes the channel of a guest. `lost`: its VM is gone, and its ranks with it.
    pub fn detach(&self, vm: &VmName, lost: bool) {
        self.tell(Command::Detach {
            vm: vm.clone(),
            lost,
        });
    }

    /// Waits until the agents of `vms` were heard, at most `limit`; says whether they were.
    pub async fn heard(&self, vms: &[VmName], limit: Duration) -> bool {
        let mut view = self.view.subscribe();
        let all = |view: &GangView| {
            let agent = |vm| view.guests.get(vm).map(|guest| &guest.agent);
            vms.iter()
                .all(|vm| !matches!(agent(vm), None | Some(AgentView::Silent)))
        };
        tokio::time::timeout(limit, view.wait_for(all))
            .await
            .is_ok()
    }

    fn tell(&self, command: Command) {
        // The coordinator lives as long as this handle.
        if self.commands.send(command).is_err() {
            tracing::error!("the coordinator of a gang has ended");
        }
    }

    async fn begin(&self, what: Begin, limit: Duration) -> Result<Switched, SwitchFailure> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Begin {
            what,
            limit,
            answer,
        });
        answered.await.unwrap_or_else(|_| {
            Err(SwitchFailure::Broken {
                reason: "the coordinator has ended".into(),
                left: Left::Unknown,
            })
        })
    }
}

impl Guests for Gang {
    fn recover(
        &self,
        vms: &[VmName],
        limit: Duration,
    ) -> BoxFuture<'_, Result<Standing, SwitchFailure>> {
        let vms = vms.to_vec();
        Box::pin(async move {
            if !self.heard(&vms, limit).await {
                tracing::warn!("not all agents were heard");
            }
            self.tell(Command::Expect { vms });
            self.begin(Begin::Recover, limit).await?;
            let view = self.view();
            Ok(Standing {
                interconnect: view.interconnect,
                held: view.held,
                ranks: !view.ranks.is_empty(),
            })
        })
    }

    fn switch(
        &self,
        to: Target,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Switched, SwitchFailure>> {
        Box::pin(self.begin(Begin::Switch(to), limit))
    }

    fn hold(&self, limit: Duration) -> BoxFuture<'_, Result<Switched, SwitchFailure>> {
        Box::pin(self.begin(Begin::Hold, limit))
    }

    fn rebuild(
        &self,
        to: Target,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Switched, SwitchFailure>> {
        Box::pin(self.begin(Begin::Rebuild(to), limit))
    }

    fn abort(&self) {
        self.tell(Command::Abort);
    }

    fn slow_down(&self, percent: u8) {
        self.tell(Command::SlowDown { percent });
    }

    fn silent(&self) -> Vec<VmName> {
        self.view.borrow().silent()
    }

    fn devices(&self, vm: &VmName) -> Option<DeviceReport> {
        self.view.borrow().guests.get(vm)?.devices.clone()
    }

    fn ask_devices(&self, vm: &VmName) {
        // At once: who asks and then looks must not see what was there before.
        self.view.send_modify(|view| {
            if let Some(guest) = view.guests.get_mut(vm) {
                guest.devices = None;
            }
        });
        self.tell(Command::Ask { vm: vm.clone() });
    }

    fn drop_cache(&self, limit: Duration) -> BoxFuture<'_, BTreeMap<VmName, u64>> {
        let mut asked = Vec::new();
        self.view.send_modify(|view| {
            for (vm, guest) in &mut view.guests {
                guest.cache_dropped = None;
                if matches!(guest.agent, AgentView::Present { .. }) {
                    asked.push(vm.clone());
                }
            }
        });
        for vm in asked.iter().cloned() {
            self.tell(Command::DropCache { vm });
        }
        Box::pin(async move {
            let dropped = |view: &GangView, vm| view.guests.get(vm)?.cache_dropped;
            let mut view = self.view.subscribe();
            let all = |view: &GangView| asked.iter().all(|vm| dropped(view, vm).is_some());
            if tokio::time::timeout(limit, view.wait_for(all))
                .await
                .is_err()
            {
                tracing::warn!("not all guests have dropped their page caches");
            }
            let view = view.borrow();
            let answers = asked
                .iter()
                .filter_map(|vm| Some((vm.clone(), dropped(&view, vm)?)));
            answers.collect()
        })
    }

    fn died_held(&self) -> Option<String> {
        self.view.borrow().died_held.clone()
    }

    fn hand_over(&self) -> BoxFuture<'_, HandOver> {
        let mut agents = Vec::new();
        for (vm, guest) in self.view().guests {
            if guest.agent != AgentView::Silent {
                agents.push(vm.clone());
            }
            self.detach(&vm, false);
        }
        Box::pin(async move {
            let mut view = self.view.subscribe();
            // The other host can open a guest's channel only when it is closed here.
            let gone = |view: &GangView| view.guests.is_empty();
            if tokio::time::timeout(CLOSING, view.wait_for(gone))
                .await
                .is_err()
            {
                tracing::warn!("guest channels did not close in time");
            }
            let view = view.borrow();
            HandOver {
                epoch: view.epoch,
                interconnect: view.interconnect,
                agents,
            }
        })
    }

    fn lost(&self, vm: &VmName) {
        self.detach(vm, true);
    }

    fn moved(&self, vm: &VmName, host: &HostName) {
        self.tell(Command::Move {
            vm: vm.clone(),
            home: host.clone(),
        });
    }
}

//! This host, as the loop sees it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::run::Ended;
use super::{Port, Seen, SeenVm, Surroundings, Wish};
use crate::api::error::chain;
use crate::api::model::{AgentInfo, VmState};
use crate::config::{GangName, HcaName, VmName};
use crate::guest::Gangs;
use crate::host::LocalHost;
use crate::operation::effects::{Guests, Host, HostCall};
use crate::operation::phases::active_gids;
use crate::operation::{Engine, Limits, Mode, OperationId, Request, Target};

/// This host.
pub struct Here {
    /// Its VMs.
    pub host: Arc<LocalHost>,
    /// Its gangs.
    pub gangs: Arc<Gangs>,
    /// Its operations.
    pub engine: Arc<Engine>,
}

impl Here {
    async fn seen(&self, name: &GangName) -> Seen {
        let busy = self.engine.busy(name);
        let gang = self.gangs.get(name);
        let vms = self.host.list().await;
        let vms = vms.into_iter().filter(|vm| vm.gang == *name);
        let idle = busy.is_none();
        let vms = vms.map(|vm| {
            let report = gang.as_ref().and_then(|gang| gang.devices(&vm.name));
            let port = match report.as_ref().map(active_gids) {
                None => Port::Unknown,
                Some(None) => Port::Down,
                Some(Some(gids)) => Port::Active(gids),
            };
            if let Some(gang) = gang.as_ref().filter(|_| idle) {
                gang.ask_devices(&vm.name);
            }
            SeenVm {
                vm: vm.name,
                running: vm.state == VmState::Running,
                heard: matches!(vm.agent, AgentInfo::Present { .. }),
                hca: vm.hca,
                port,
            }
        });
        Seen {
            vms: vms.collect(),
            busy,
            interconnect: gang.map_or(Target::Fallback, |gang| gang.view().interconnect),
        }
    }

    async fn switch_to_native(&self, gang: GangName) -> Result<Ended, String> {
        let request = Request::Switch {
            gang,
            to: Target::Native,
            mode: Mode::Live,
            limits: Limits::default(),
        };
        let begun = self.engine.submit(request, None).await;
        let begun = begun.map_err(|denied| chain(&denied))?;
        let follow = self.engine.follow(&begun.id);
        let mut shown = follow.map_err(|denial| denial.to_string())?;
        let ended = shown.wait_for(|info| info.phase.is_terminal()).await;
        let ended = ended.map_err(|_| "nobody says how it ended".to_owned())?;
        Ok(Ended {
            operation: ended.id.clone(),
            phase: ended.phase,
            reason: ended.reason.clone().unwrap_or_default(),
        })
    }
}

impl Surroundings for Here {
    fn look(&self, gang: &GangName) -> BoxFuture<'_, Seen> {
        let gang = gang.clone();
        Box::pin(async move { self.seen(&gang).await })
    }

    fn plug(&self, wish: &Wish, vm: VmName, hca: HcaName) -> BoxFuture<'_, Result<(), String>> {
        let occupied = self.engine.occupy(&wish.gang, &wish.operation);
        Box::pin(async move {
            // No operation may begin meanwhile: it would not know of the HCA.
            let _occupied = occupied.map_err(|denial| denial.to_string())?;
            let plugged = self.host.call(HostCall::Plug { vm, hca }).await;
            plugged.map(|_| ()).map_err(|error| chain(&error))
        })
    }

    fn forget(&self, operation: &OperationId) {
        self.engine.forget(operation);
    }

    fn switch(&self, gang: &GangName) -> BoxFuture<'_, Result<Ended, String>> {
        let gang = gang.clone();
        Box::pin(self.switch_to_native(gang))
    }
}

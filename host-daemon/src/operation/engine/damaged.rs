//! Journals that cannot be read to their end: disks lose blocks, and people edit files. Where their
//! operations stand nobody knows, so nothing is guessed: no operation begins on the gangs that they
//! name, and somebody is told what to look at. All other gangs are served.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tracing::{error, warn};

use super::super::journal::{JournalError, Replayed, Salvaged};
use super::{Engine, Table};
use crate::api::error::chain;
use crate::config::{GangName, HostName};
use crate::host::LocalHost;
use crate::operation::{Denial, OperationId, Phase};

/// A journal that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Damaged {
    operation: OperationId,
    file: PathBuf,
    why: String,
}

impl Damaged {
    fn denial(&self, gang: &GangName) -> Denial {
        Denial::DamagedJournal {
            gang: gang.clone(),
            operation: self.operation.clone(),
            file: self.file.clone(),
            why: self.why.clone(),
        }
    }
}

/// Those found at the start, with what is left of them.
#[derive(Default)]
pub(super) struct Found(Vec<(Damaged, Salvaged)>);

impl Found {
    /// Takes note of a journal. One whose name is none of an operation's is nobody's.
    pub fn note(&mut self, file: PathBuf, error: &JournalError) {
        let name = file.file_stem().and_then(|name| name.to_str());
        let Some(operation) = name.and_then(|name| name.parse().ok()) else {
            return;
        };
        let salvaged = Salvaged::read(&file);
        let why = chain(error);
        if salvaged.is_over {
            warn!(%operation, why, "the journal of an operation that is over is not shown");
            return;
        }
        let damaged = Damaged {
            operation,
            file,
            why,
        };
        self.0.push((damaged, salvaged));
    }

    /// The number of the last operation that has one.
    pub fn last(&self) -> u64 {
        let numbers = self.0.iter().map(|(damaged, _)| damaged.operation.number());
        numbers.max().unwrap_or(0)
    }

    /// Which gangs nothing may begin on. One that has had a later operation is not among them: that
    /// began when this was over. Where nothing can be read, it may be any gang of this host.
    pub fn block(
        self,
        host: &LocalHost,
        here: &HostName,
        later: &BTreeMap<GangName, u64>,
        table: &mut Table,
    ) -> BTreeMap<GangName, Damaged> {
        let mut blocked = BTreeMap::new();
        for (damaged, salvaged) in self.0 {
            let gangs = host.gang_names().into_iter();
            let named = |gang: &GangName| {
                let specs = host.specs(gang);
                salvaged.names(gang.as_str())
                    || specs.iter().any(|spec| salvaged.names(spec.name.as_str()))
            };
            let mut gangs: Vec<_> = gangs.filter(named).collect();
            gangs.extend(salvaged.plan.iter().map(|plan| plan.request.gang().clone()));
            if gangs.is_empty() {
                gangs = host.gang_names();
            }
            gangs.sort();
            gangs.dedup();
            let number = damaged.operation.number();
            gangs.retain(|gang| later.get(gang).is_none_or(|later| *later < number));
            for gang in &gangs {
                error!(%gang, why = damaged.why, "nothing is done to a gang");
                // Neither by operations of other hosts.
                host.lease_again(gang, &damaged.operation);
                blocked.insert(gang.clone(), damaged.clone());
            }
            if let (Some(plan), Some(gang)) = (salvaged.plan, gangs.first()) {
                let denial = damaged.denial(gang);
                let mut replayed = Replayed::start(plan);
                replayed.state.phase = Phase::NeedsOperator;
                replayed.state.reasons = vec![format!("{}; {}", damaged.why, denial.way_out())];
                table.remember(here, replayed);
            }
        }
        blocked
    }
}

impl Engine {
    /// Why nothing may begin on a gang whose last operation nobody knows the end of.
    ///
    /// # Errors
    /// [`Denial::DamagedJournal`].
    pub fn see_it_is_known(&self, gang: &GangName) -> Result<(), Denial> {
        match self.damaged.get(gang) {
            Some(damaged) => Err(damaged.denial(gang)),
            None => Ok(()),
        }
    }
}

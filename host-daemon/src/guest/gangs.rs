//! The gangs that this host coordinates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Connector, Gang};
use crate::config::{GangName, HostName, VmName};
use crate::operation::Target;

/// The gangs that this host coordinates, by name.
pub struct Gangs {
    connector: Arc<dyn Connector>,
    known: Mutex<BTreeMap<GangName, Gang>>,
}

impl Gangs {
    /// None yet.
    pub fn new(connector: Arc<dyn Connector>) -> Self {
        Self {
            connector,
            known: Mutex::default(),
        }
    }

    /// The gang, if it is coordinated here.
    pub fn get(&self, name: &GangName) -> Option<Gang> {
        self.lock().get(name).cloned()
    }

    /// Opens the channel of a guest of the gang. A gang that is not known yet begins as a job
    /// does, on what UCX finds; ranks that are further tell so.
    pub fn attach(&self, name: &GangName, vm: &VmName, home: &HostName) {
        self.begin(name, 0, Target::Native).attach(vm, home);
    }

    /// The gang; if it is not known yet, in `epoch` on `interconnect`.
    pub fn begin(&self, name: &GangName, epoch: u64, interconnect: Target) -> Gang {
        let start = || Gang::start(name.clone(), self.connector.clone(), epoch, interconnect);
        self.lock()
            .entry(name.clone())
            .or_insert_with(start)
            .clone()
    }

    /// The gang as another host hands it over. What was known of it here is from an earlier time,
    /// unless some of its guests never left.
    pub fn take_over(&self, name: &GangName, epoch: u64, interconnect: Target) -> Gang {
        let mut known = self.lock();
        if known
            .get(name)
            .is_some_and(|gang| gang.view().guests.is_empty())
        {
            known.remove(name);
        }
        drop(known);
        self.begin(name, epoch, interconnect)
    }

    /// Closes a guest's channel; a gang without guests is forgotten.
    pub fn detach(&self, name: &GangName, vm: &VmName, lost: bool) {
        if let Some(gang) = self.get(name) {
            gang.detach(vm, lost);
        }
    }

    /// Forgets a gang that has no VM on this host any more.
    pub fn forget(&self, name: &GangName) {
        self.lock().remove(name);
    }

    /// Closes all channels.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<GangName, Gang>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

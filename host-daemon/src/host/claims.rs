//! Who has which HCA, and what operations have reserved. In memory: after a restart it is rebuilt
//! from the records of the VMs.

use std::collections::BTreeMap;

use crate::config::{ByteSize, HcaName, HostConfig, VmName, VmSpec};
use crate::operation::OperationId;

/// What an operation has reserved on this host.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Reservation {
    /// VMs that are to come.
    pub vms: Vec<VmSpec>,
    /// HCAs that they get.
    pub hcas: BTreeMap<VmName, HcaName>,
}

/// Claims on what a host has.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// HCAs that VMs have, plugged or about to be.
    pub held: BTreeMap<HcaName, VmName>,
    /// By operation.
    pub reserved: BTreeMap<OperationId, Reservation>,
}

impl Claims {
    /// HCAs that nobody has or is to get.
    pub fn free_hcas(&self, config: &HostConfig) -> Vec<HcaName> {
        let reserved = |hca: &HcaName| {
            self.reserved
                .values()
                .any(|reservation| reservation.hcas.values().any(|h| h == hca))
        };
        let names = config.hcas.iter().map(|hca| hca.name());
        names
            .filter(|hca| !self.held.contains_key(*hca) && !reserved(hca))
            .cloned()
            .collect()
    }

    /// The HCA that a VM has.
    pub fn of(&self, vm: &VmName) -> Option<HcaName> {
        self.held
            .iter()
            .find(|(_, holder)| *holder == vm)
            .map(|(hca, _)| hca.clone())
    }

    /// The VM has none any more.
    pub fn release(&mut self, vm: &VmName) {
        self.held.retain(|_, holder| holder != vm);
    }

    /// Memory of VMs that are to come and have no QEMU yet.
    pub fn reserved_memory(&self, started: impl Fn(&VmName) -> bool) -> ByteSize {
        let vms = self
            .reserved
            .values()
            .flat_map(|reservation| &reservation.vms);
        ByteSize(
            vms.filter(|vm| !started(&vm.name))
                .map(|vm| vm.memory.0)
                .sum(),
        )
    }
}

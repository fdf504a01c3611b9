//! Who has which HCA, and what operations have reserved. Who has what is in memory: after a restart
//! it is rebuilt from the records of the VMs and from the operations under way.

use std::collections::BTreeMap;

use super::leases::Leases;
use super::reservations::Reservations;
use crate::config::{HcaName, HostConfig, VmName, VmSpec};

/// Claims on what a host has.
#[derive(Debug)]
pub(super) struct Claims {
    /// HCAs that VMs have, plugged or about to be.
    pub held: BTreeMap<HcaName, VmName>,
    /// By operation.
    pub reserved: Reservations,
    /// The gangs that operations of this host have.
    pub leases: Leases,
}

impl Claims {
    /// Nobody has anything but what is reserved.
    pub fn new(reserved: Reservations) -> Self {
        Self {
            held: BTreeMap::new(),
            reserved,
            leases: Leases::new(),
        }
    }

    /// HCAs that nobody has or is to get.
    pub fn free_hcas(&self, config: &HostConfig) -> Vec<HcaName> {
        let reserved = |hca: &HcaName| {
            self.reserved
                .iter()
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

    /// Whether the VM is one that an operation under way brings here.
    pub fn is_arriving(&self, vm: &VmName) -> bool {
        let mut vms = self.reserved.iter().flat_map(|reserved| &reserved.vms);
        vms.any(|spec| spec.name == *vm)
    }

    /// The VM has none any more.
    pub fn release(&mut self, vm: &VmName) {
        self.held.retain(|_, holder| holder != vm);
    }

    /// VMs that are to come and have no QEMU yet.
    pub fn awaited(&self, started: impl Fn(&VmName) -> bool) -> impl Iterator<Item = &VmSpec> {
        let all = self.reserved.iter();
        let vms = all.flat_map(|reservation| &reservation.vms);
        vms.filter(move |vm| !started(&vm.name))
    }
}

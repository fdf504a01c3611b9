//! Whether VMs fit on this host, before anything is changed.

use std::collections::BTreeMap;
use std::fs::File;

use super::LocalHost;
use super::reservations::Reservation;
use crate::config::{ByteSize, VmSpec};
use crate::operation::effects::{HostError, HostReply};
use crate::operation::{Denial, OperationId};

impl LocalHost {
    /// Reserves what `vms` need: memory, virtual CPUs, and HCAs if there is one for each that wants one.
    pub(super) async fn admit(
        &self,
        operation: OperationId,
        vms: Vec<VmSpec>,
    ) -> Result<HostReply, HostError> {
        let _one_at_a_time = self.admitting.lock().await;
        for spec in &vms {
            let may = self.may_arrive(&spec.gang, &operation);
            may.map_err(HostError::Denied)?;
        }
        // Repeated after a lost answer: begin again.
        let begun_again = self.claims().reserved.remove(&operation);
        begun_again.map_err(|error| self.failed(&error))?;
        for spec in &vms {
            self.check_spec(spec)?;
        }
        self.check_room(&vms)?;
        let free = self.claims().free_hcas(&self.config);
        let wanting: Vec<_> = vms.iter().filter(|spec| spec.hca.is_some()).collect();
        let hcas: BTreeMap<_, _> = if free.len() >= wanting.len() {
            wanting
                .iter()
                .map(|spec| spec.name.clone())
                .zip(free.iter().cloned())
                .collect()
        } else {
            // Some with and some without would talk by what all of them have anyhow.
            BTreeMap::new()
        };
        let reply = HostReply::Admitted {
            hcas: hcas.clone(),
            free: free.len(),
            wanted: wanting.len(),
        };
        let reservation = Reservation { vms, hcas };
        let reserved = self.claims().reserved.put(operation, reservation);
        reserved.map_err(|error| self.failed(&error))?;
        Ok(reply)
    }

    /// What a VM's specification asks of this host, room and HCA aside.
    pub(super) fn check_spec(&self, spec: &VmSpec) -> Result<(), HostError> {
        let vm = spec.name.clone();
        let host = self.config.host.clone();
        if let Err(message) = spec.check() {
            return Err(HostError::Denied(Denial::BadSpec { vm, message }));
        }
        if self.machines().contains_key(&vm) {
            return Err(HostError::Denied(Denial::VmExists { vm, host }));
        }
        let disks = spec.disks.iter().map(|disk| &disk.path);
        let mut files = spec.kernel.iter().chain(&spec.initrd).chain(disks);
        match files.find(|file| File::open(file).is_err()) {
            Some(file) => Err(HostError::Denied(Denial::MissingFile {
                vm,
                host,
                file: file.clone(),
            })),
            None => Ok(()),
        }
    }

    pub(super) fn check_room(&self, vms: &[VmSpec]) -> Result<(), HostError> {
        let host = self.config.host.clone();
        let (wanted, free) = (memory_of(vms.iter()), self.free_memory());
        if wanted > free {
            return Err(HostError::Denied(Denial::Full { host, free, wanted }));
        }
        let wanted = vcpus_of(vms.iter());
        match self.free_vcpus() {
            Some(free) if wanted > free => {
                Err(HostError::Denied(Denial::NoVcpus { host, free, wanted }))
            }
            _ => Ok(()),
        }
    }

    /// Virtual CPUs that are left for VMs; `None` without a limit.
    pub fn free_vcpus(&self) -> Option<u32> {
        let limit = self.config.vcpus?;
        let machines = self.machines();
        let used = vcpus_of(machines.values().map(|machine| &machine.spec));
        let reserved = vcpus_of(self.claims().awaited(|vm| machines.contains_key(vm)));
        Some(limit.saturating_sub(used).saturating_sub(reserved))
    }

    /// Memory that is left for VMs.
    pub fn free_memory(&self) -> ByteSize {
        let machines = self.machines();
        let started = |vm: &_| machines.contains_key(vm);
        let reserved = memory_of(self.claims().awaited(started)).0;
        let free = match self.config.memory {
            Some(limit) => {
                let used = memory_of(machines.values().map(|machine| &machine.spec));
                limit.0.saturating_sub(used.0)
            }
            None => available(),
        };
        ByteSize((free.saturating_sub(reserved) >> 20) << 20)
    }

    /// HCAs that no VM has or is to get.
    pub fn free_hcas(&self) -> Vec<crate::config::HcaName> {
        self.claims().free_hcas(&self.config)
    }
}

/// Memory of VMs together. What peers ask for may be more than there are numbers for.
fn memory_of<'a>(vms: impl Iterator<Item = &'a VmSpec>) -> ByteSize {
    ByteSize(vms.map(|spec| spec.memory.0).fold(0, u64::saturating_add))
}

fn vcpus_of<'a>(vms: impl Iterator<Item = &'a VmSpec>) -> u32 {
    vms.map(|spec| u32::from(spec.vcpus))
        .fold(0, u32::saturating_add)
}

/// What the kernel calls available, in bytes.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_with_more_memory_than_there_are_numbers_for_fit_nowhere() {
        let vm = r#"{"name": "vm1", "gang": "job", "memory": "8388608TiB", "kernel": "k"}"#;
        let vm: VmSpec = serde_json::from_str(vm).unwrap();
        assert_eq!(memory_of([&vm, &vm].into_iter()), ByteSize(u64::MAX));
    }
}

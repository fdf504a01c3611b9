//! One operation at a time for a gang, also where the gang is on two hosts: its VMs may have been
//! left split, and each of their daemons be asked to bring them together.
//!
//! ```text
//!   a: migrate job --to b          b: migrate job --to a
//!      lease at a ─► admit at b ──►   refused: b has a lease of its own …
//!      … refused: a has one     ◄── admit at a ◄─ lease at b        at worst both; never none
//! ```
//!
//! A lease is taken at home before the other host is asked. There, what is reserved for a gang on its
//! way is the lease, on disk, until it is given back or its coordinator asks again.

use std::collections::BTreeMap;

use super::LocalHost;
use super::reservations::Reservations;
use crate::config::{GangName, HostName};
use crate::operation::{Denial, OperationId};

/// The operations of this host, by gang.
pub(super) type Leases = BTreeMap<GangName, OperationId>;

/// The operation that one of `coordinator` on `gang` would meet on a host with these leases and
/// reservations. Pure.
fn met(
    leases: &Leases,
    reserved: &Reservations,
    gang: &GangName,
    coordinator: &HostName,
) -> Option<OperationId> {
    let arriving = reserved.by_operation().find(|(operation, reservation)| {
        // What a coordinator has reserved earlier is its own affair: it begins one at a time.
        operation.coordinator().as_ref() != Some(coordinator)
            && reservation.vms.iter().any(|spec| spec.gang == *gang)
    });
    let leased = leases.get(gang);
    leased.or(arriving.map(|(operation, _)| operation)).cloned()
}

impl LocalHost {
    /// Takes the gang for an operation of this host.
    ///
    /// # Errors
    /// [`Denial::Busy`].
    pub fn lease(&self, gang: &GangName, operation: &OperationId) -> Result<(), Denial> {
        let mut claims = self.claims();
        let met = met(&claims.leases, &claims.reserved, gang, &self.config.host);
        match met {
            Some(operation) => Err(busy(gang, operation)),
            None => {
                claims.leases.insert(gang.clone(), operation.clone());
                Ok(())
            }
        }
    }

    /// Takes the gang for an operation that an earlier daemon of this host began.
    pub fn lease_again(&self, gang: &GangName, operation: &OperationId) {
        self.claims().leases.insert(gang.clone(), operation.clone());
    }

    /// Gives the gang back.
    pub fn end_lease(&self, gang: &GangName) {
        self.claims().leases.remove(gang);
    }

    /// The operations of this host that are under way, by gang.
    pub fn leases(&self) -> BTreeMap<GangName, OperationId> {
        self.claims().leases.clone()
    }

    /// Whether another host's operation may bring VMs of a gang here.
    pub(super) fn may_arrive(
        &self,
        gang: &GangName,
        operation: &OperationId,
    ) -> Result<(), Denial> {
        let claims = self.claims();
        let by = operation.coordinator();
        let by = by.as_ref().unwrap_or(&self.config.host);
        match met(&claims.leases, &claims.reserved, gang, by) {
            Some(other) => Err(busy(gang, other)),
            None => Ok(()),
        }
    }
}

fn busy(gang: &GangName, operation: OperationId) -> Denial {
    Denial::Busy {
        gang: gang.clone(),
        operation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::reservations::Reservation;

    fn gang(name: &str) -> GangName {
        name.parse().unwrap()
    }

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    #[test]
    fn an_operation_meets_those_of_this_host_and_those_that_others_bring_here() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserved = Reservations::load(folder.path().to_owned()).unwrap();
        let mut leases = Leases::new();
        let spec = r#"{"name": "vm1", "gang": "job", "memory": "512MiB", "kernel": "/vmlinuz"}"#;
        let vms = vec![serde_json::from_str(spec).unwrap()];
        let arriving: OperationId = "c-7".parse().unwrap();
        let hcas = BTreeMap::new();
        let meets = |leases: &Leases, reserved: &Reservations, name: &str, by: &str| {
            met(leases, reserved, &gang(name), &host(by))
        };
        assert_eq!(meets(&leases, &reserved, "job", "a"), None);
        reserved
            .put(arriving.clone(), Reservation { vms, hcas })
            .unwrap();
        assert_eq!(meets(&leases, &reserved, "job", "a"), Some(arriving));
        assert_eq!(meets(&leases, &reserved, "other", "a"), None);
        assert_eq!(meets(&leases, &reserved, "job", "c"), None, "its own");
        let here: OperationId = "a-1".parse().unwrap();
        leases.insert(gang("job"), here.clone());
        assert_eq!(meets(&leases, &reserved, "job", "c"), Some(here));
    }
}

//! What operations have reserved on this host, on disk: an operation goes on when its coordinator or
//! this daemon was restarted, and finds what it was admitted with.
//!
//! ```text
//!   STATE_DIR/reservations/a-00007.json
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{HcaName, VmName, VmSpec};
use crate::kept;
use crate::operation::OperationId;

/// What an operation has reserved on this host.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reservation {
    /// VMs that are to come.
    pub vms: Vec<VmSpec>,
    /// HCAs that they get.
    pub hcas: BTreeMap<VmName, HcaName>,
}

/// The reservations, by operation.
#[derive(Debug)]
pub(super) struct Reservations {
    directory: PathBuf,
    known: BTreeMap<OperationId, Reservation>,
}

impl Reservations {
    /// Those in a directory, which need not exist.
    ///
    /// # Errors
    /// It cannot be read. A file that is no reservation is told of and left alone.
    pub fn load(directory: PathBuf) -> io::Result<Self> {
        let kept = kept::read_all(&directory, "reservation", |name| name.parse().ok())?;
        let known = kept.into_iter().collect();
        Ok(Self { directory, known })
    }

    /// What the operation has reserved.
    pub fn of(&self, operation: &OperationId) -> Option<&Reservation> {
        self.known.get(operation)
    }

    /// All of them, by operation.
    pub fn by_operation(&self) -> impl Iterator<Item = (&OperationId, &Reservation)> {
        self.known.iter()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.known.values()
    }

    /// Reserves, in place of what the operation had reserved before.
    ///
    /// # Errors
    /// It cannot be written; nothing is reserved.
    pub fn put(&mut self, operation: OperationId, reservation: Reservation) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        kept::replace(&self.path(&operation), &reservation)?;
        self.known.insert(operation, reservation);
        Ok(())
    }

    /// Gives back what the operation has reserved, if anything.
    ///
    /// # Errors
    /// The file cannot be removed: the reservation stands.
    pub fn remove(&mut self, operation: &OperationId) -> io::Result<()> {
        kept::remove(&self.path(operation))?;
        self.known.remove(operation);
        Ok(())
    }

    fn path(&self, operation: &OperationId) -> PathBuf {
        self.directory.join(format!("{operation}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_there_after_a_restart_until_they_are_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("reservations");
        let operation: OperationId = "a-7".parse().unwrap();
        let mut reservation = Reservation::default();
        let hca = ("vm1".parse().unwrap(), "hca0".parse().unwrap());
        reservation.hcas.extend([hca]);
        let mut before = Reservations::load(place.clone()).unwrap();
        before.put(operation.clone(), reservation.clone()).unwrap();
        std::fs::write(place.join("a-8.json"), "{ cut sho").unwrap();
        let mut after = Reservations::load(place.clone()).unwrap();
        assert_eq!(after.of(&operation), Some(&reservation));
        assert_eq!(after.iter().count(), 1);
        after.remove(&operation).unwrap();
        after.remove(&operation).unwrap();
        assert_eq!(Reservations::load(place).unwrap().iter().count(), 0);
    }
}

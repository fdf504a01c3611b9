//! How a job's transports change, and how UCX sends over them.

use std::time::Duration;

use crate::mpi::Mpi;
use crate::rehearsal::Rehearsal;

/// One setting of a storm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// For the table.
    pub name: &'static str,
    /// Transports beside tcp.
    beside_tcp: &'static [&'static str],
    /// The interval between switches is drawn at random.
    random: bool,
    /// For the ranks: UCX's variables.
    pub environment: &'static [(&'static str, &'static str)],
}

const SHM: &[&str] = &["shm"];
/// Shared memory with and without reading of each other's memory by the kernel: what a rendezvous
/// does differs.
const CMA: &[&str] = &["posix,cma,self@all", "posix,self@all"];

macro_rules! protocols {
    ($($name:literal: $version:literal, $threshold:literal;)*) => {[$(
        Setting {
            name: $name,
            beside_tcp: CMA,
            random: true,
            environment: &[("UCX_PROTO_ENABLE", $version), ("UCX_RNDV_THRESH", $threshold)],
        },
    )*]};
}

impl Setting {
    /// tcp ↔ shm, a switch every 50 ms.
    pub const USUAL: Setting = Setting {
        name: "tcp, shm every 50 ms",
        beside_tcp: SHM,
        random: false,
        environment: &[],
    };

    /// tcp ↔ shm ↔ cma, a switch every 20 to 300 ms, both of UCX's protocol versions, and three
    /// thresholds from which on a message is fetched by its receiver (rendezvous).
    pub const PROTOCOLS: [Setting; 6] = protocols! {
        "protocols v1, rendezvous always": "n", "0";
        "protocols v1, rendezvous from 2000 B": "n", "2000";
        "protocols v1, rendezvous never": "n", "inf";
        "protocols v2, rendezvous always": "y", "0";
        "protocols v2, rendezvous from 2000 B": "y", "2000";
        "protocols v2, rendezvous never": "y", "inf";
    };

    /// The rehearsal of a job of `mpi`.
    pub fn rehearsal(&self, mpi: Mpi) -> Rehearsal {
        let mut over = vec!["tcp"];
        over.extend(self.beside_tcp);
        let rehearsal = Rehearsal::default().over_each(&over).at(mpi.place());
        if self.random {
            rehearsal.between(Duration::from_millis(20), Duration::from_millis(300))
        } else {
            rehearsal
        }
    }

    /// Fewer switches in 3 s say nothing. See [`crate::storm::FEWEST`].
    pub fn fewest(&self) -> u64 {
        if self.random { 4 } else { crate::storm::FEWEST }
    }
}

//! What the user of a job is told soon after its start, if it cannot be moved: which way around
//! UCX it takes, and which setting mends it.
//!
//! A process that never calls UCP never comes by here otherwise. So the look is taken by a thread
//! of its own, which ends after a few seconds, in one rank of each guest, where there is an agent
//! that somebody could ask to move the job. MPI must be linked to the program: one that loads it
//! later, as Python does, is told only once it has called UCP; `symvirt-guest doctor` sees it.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use symvirt_inspect::facts::Facts;
use symvirt_inspect::finding;

use crate::process::gang;
use crate::{channel, life};

/// Time between two looks; two must show the same, because MPI looks at several of its components
/// before it chooses.
const LOOK: Duration = Duration::from_secs(1);
/// The last look at a process that has not begun to use MPI.
const LOOKS: usize = 10;

/// Numbers of a rank among those of its guest, as launchers tell it.
const LOCAL_RANKS: [&str; 3] = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
];

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    if has_mpi() {
        start();
    }
}

/// Begins to look, once per process, if this is the rank that speaks for its guest.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let first = |name| std::env::var_os(name).is_some_and(|number| number == "0");
        if LOCAL_RANKS.into_iter().any(first)
            && channel::socket().exists()
            && let Err(error) = life::spawn_helper("symvirt-advice", advise)
        {
            crate::log::debug!("no thread to look at the process: {error}");
        }
    });
}

fn advise() {
    let mut before = None;
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK);
        let now = Facts::of(Path::new("/proc"), std::process::id());
        let joined = gang::is_member();
        if let Some(facts) = now.as_ref().filter(|now| before.as_ref() == Some(*now))
            && (joined || facts.has_chosen() || !facts.fabrics.is_empty())
        {
            for finding in finding::of(facts, joined, false) {
                crate::log::warning!("this job cannot be moved: {finding}");
            }
            return;
        }
        before = now;
    }
}

/// Whether an MPI library is among those that the program is linked to.
fn has_mpi() -> bool {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a description with a C string, and our place.
        unsafe {
            let name = (*info).dlpi_name;
            if !name.is_null() {
                let name = std::ffi::CStr::from_ptr(name).to_bytes();
                let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
                let is_mpi = file.starts_with(b"libmpi.so") || file.starts_with(b"libmpich.so");
                *found.cast::<bool>() |= is_mpi;
            }
        }
        0
    }
    let mut found = false;
    // SAFETY: the callback keeps to its place, which lives until the call returns.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    found
}

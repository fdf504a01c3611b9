//! Gangs whose job runs on less than it was to have, and is to get it as soon as that is possible.
//!
//! ```text
//!   operation ends degraded: an HCA could not be plugged, its port stayed down, the switch failed
//!        │ wish, on disk                               (at the host that coordinates the gang now)
//!        ▼
//!   look ─► HCA missing: plug ─► port down: wait ─► settled: `switch` to native, an operation of its
//!    ▲                                                own ─► done: the wish is fulfilled
//!    └── later and later, until it is fulfilled, cancelled, or the gang has left
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`wish`] | which operations leave one |
//! | [`step`] | what is done next; pure |
//! | [`wishes`] | those of this host, on disk |
//! | [`run`](fn@run) | the loop |
//! | [`here`] | the loop's view of this host |
//!
//! What changes the job is an operation like any other: journalled, refused while another is under
//! way, without effect if it fails. Nothing here waits while an operation does.

mod here;
mod run;
mod step;
mod wish;
mod wishes;

pub use here::Here;
pub use run::{Surroundings, run};
pub use step::{Port, Seen, SeenVm, Step, step};
pub use wish::{Wish, wanted};
pub use wishes::{RetryInfo, Wishes};

//! Operations on gangs: request, plan, journal, phases, end.
//!
//! ```text
//!  Request ─► engine: validate ─► Plan ─► driver ─┬─► journal: intent
//!             (Denial)                            ├─► phases: effects on hosts and guests
//!                                                 ├─► journal: outcome
//!                                                 └─► state: next phase … a terminal one
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | what is asked for and what was decided |
//! | [`denial`] | why it is refused |
//! | [`convergence`] | whether a gang converges, when, and what if it does not |
//! | [`phase`] | its phases |
//! | [`state`] | the pure state machine |
//! | [`journal`] | records on disk, and their replay |
//! | [`engine`] | the operations of this host |
//! | [`driver`] | the loop between them |
//! | [`phases`] | what each phase does |
//! | [`patient`] | a peer that may be restarting |
//! | [`effects`] | the traits that stand for hosts, guests and the clock |
//! | [`report`] | what was measured |

pub mod convergence;
pub mod denial;
pub mod driver;
pub mod effects;
pub mod engine;
pub mod journal;
pub mod patient;
pub mod phase;
pub mod phases;
pub mod plan;
pub mod report;
pub mod request_id;
pub mod state;
#[cfg(test)]
mod state_tests;
mod validate;

pub use denial::Denial;
pub use effects::CopyStatus;
pub use engine::Engine;
pub use phase::Phase;
pub use plan::{
    Compress, DropCache, IfNotConverging, Limits, Mode, OperationId, Plan, Request, Target, VmPlan,
};
pub use report::Report;
pub use request_id::RequestId;
pub use state::{Event, State};
pub use validate::Denied;

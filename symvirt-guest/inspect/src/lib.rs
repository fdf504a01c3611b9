//! What the processes of a job show of themselves: which MPI and UCX are in them, what MPI uses,
//! and what stands in the way of moving them.
//!
//! | module | holds |
//! |---|---|
//! | [`facts`] | one process as /proc shows it |
//! | [`finding`] | what follows for a migration, and which setting mends it; pure |
//! | [`threads`] | where the threads of a process that does not answer stand |
//!
//! The library looks at its own process so, the program at those of a job.
#![forbid(unsafe_code)]

pub mod facts;
pub mod finding;
pub mod threads;

//! `libsymvirt.so`: lets an unmodified MPI job change its interconnect while it runs.
//!
//! The library is preloaded in front of UCX and interposes UCP. What the application holds are
//! objects of ours; each knows the recipe to build the real one again.
//!
//! ```text
//!   application ──► export ──► object ──► real (libucp)
//!                     │ gate     ▲
//!                     ▼          │ swaps the real side under the closed gate
//!                   tls        switch ◄── channel ◄── agent
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`export`] | the C functions: thin, one file per UCP object |
//! | [`object`] | virtual context, worker, endpoint, request, message, datatype |
//! | [`transfer`] | starting operations on the real side |
//! | [`gate`], [`tls`] | who is inside UCX, and how all of them are kept out for a moment |
//! | [`switch`] | prepare, commit, release: the helper threads |
//! | [`process`] | what there is one of per process: identity, epoch, contexts, the round |
//! | [`channel`] | the socket to the agent |
//! | [`turn`] | one thread at a time with a worker that several share |
//! | [`barrier`] | barriers that only those pay for who come seldom |
//! | [`queue`] | things that wait for a thread of the application |
//! | [`real`] | entries of the real libucp |
//! | [`spool`] | memory for drained messages, with a limit |
//! | [`advice`] | what the user is told at start, if the job cannot be moved |
//! | [`life`] | fork, exit, threads |
//! | [`log`] | messages for the person who runs the job, `SYMVIRT_LOG` |
//!
//! Without an agent nothing is virtualized: contexts are the real ones and every call passes
//! through. The library never makes a job fail that would run without it.

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod advice;
#[cfg_attr(loom, allow(dead_code, reason = "only the model runs"))]
mod barrier;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod export;
#[cfg_attr(loom, allow(dead_code, reason = "only the model runs"))]
mod gate;
#[cfg(not(loom))]
mod life;
#[cfg(not(loom))]
mod log;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod process;
#[cfg_attr(loom, allow(dead_code, reason = "only the model runs"))]
mod queue;
#[cfg(not(loom))]
mod real;
#[cfg(not(loom))]
mod spool;
#[cfg(not(loom))]
mod switch;
#[cfg_attr(loom, allow(dead_code, reason = "only the model runs"))]
mod tls;
#[cfg(not(loom))]
mod transfer;
#[cfg_attr(loom, allow(dead_code, reason = "only the model runs"))]
mod turn;

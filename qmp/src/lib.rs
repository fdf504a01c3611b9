//! A typed, cancellation-safe asynchronous client of QEMU's machine protocol (QMP).
//!
//! The commands and events are `qapi-qmp`'s generated types ([`commands`]); the connection loop is
//! our own, because an event from a newer QEMU, a command that times out, or a future that is
//! dropped must not cost the connection to a running machine.
//!
//! ```no_run
//! use std::time::Duration;
//! use symvirt_qmp::{Client, commands};
//!
//! # async fn example() -> Result<(), symvirt_qmp::Error> {
//! let qmp = Client::connect("/run/symvirt/vm.qmp", Duration::from_secs(10)).await?;
//! let mut events = qmp.subscribe(); // before acting: nothing that follows can be missed
//! qmp.execute(commands::stop {}).await?;
//! while events.next().await.is_ok_and(|event| event.name != "STOP") {}
//! let status = qmp.execute(commands::query_status {}).await?;
//! assert!(!status.running);
//! # Ok(()) }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`Client`] | connect, execute, subscribe |
//! | [`hotplug`] | plug lists of objects and devices with undo; unplug until it is proved |
//! | [`objects`] | user-made objects, by id |
//! | [`migration`] | reset, configure, start, observe, continue, cancel, receive |
//! | [`wire`] | the lines themselves |
//!
//! It does not reconnect, does not start QEMU and knows nothing about gangs or hosts.

#![forbid(unsafe_code)]

mod client;
mod connection;
mod error;
mod event;
pub mod hotplug;
pub mod migration;
pub mod objects;
pub mod wire;

pub use client::{Client, DEFAULT_LIMIT};
pub use error::{CloseReason, CommandName, Error, ErrorClass};
pub use event::{Event, EventError, Events, Timestamp, WaitError};
pub use qapi_qmp as commands;
pub use wire::{Greeting, Version};

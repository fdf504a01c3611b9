//! The host daemon: `symvirtd`, and `symvirt`, its command line.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | what an operator writes: host and VM files |
//! | [`pki`] | certificates for a start |
//! | [`daemon`] | `symvirtd`: everything below, put together |
//! | [`host`] | this host's VMs and HCAs, and what operations ask of it |
//! | [`guest`] | channels to agents, coordinators of gangs |
//! | [`operation`] | what is done to gangs: plan, journal, state machine, phases |
//! | [`retry`] | gangs that are to get onto their HCAs later |
//! | [`peer`] | the link between daemons |
//! | [`api`] | what the daemon shows and takes |
//! | [`cli`], [`http`] | `symvirt`, and its client |
//! | [`vm`] | the VMs of this host: QEMU processes, taps, HCAs |
#![forbid(unsafe_code)]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "module heads are maps for whoever works here"
)]

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod guest;
pub mod host;
pub mod http;
mod kept;
pub mod operation;
pub mod peer;
pub mod pki;
pub mod retry;
pub mod vm;

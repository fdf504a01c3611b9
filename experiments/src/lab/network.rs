//! Hosts as network namespaces.
//!
//! ```text
//!   namespace a                                   namespace b
//!   br0 10.77.0.1 ── eth-b ═════ veth ═════ eth-a ── br0 10.77.0.2
//!    │ taps of guests' virtio                         │
//!   ib0 (HCA fabric of this host)                    ib0
//! ```
//!
//! `br0` is Ethernet: guests' management, the daemons' link, migration streams. `ib0` carries the
//! HCA stand-ins and is not joined: a guest on b has no way into the fabric of a.

use super::ledger::{Ledger, LedgerError};
use crate::command;

/// Makes the namespaces of `hosts` and joins each to the first.
///
/// # Errors
/// [`LedgerError`]; what was made is in the ledger.
pub(super) fn make(ledger: &Ledger, hosts: &[&str]) -> Result<Vec<String>, LedgerError> {
    let mut namespaces: Vec<String> = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let namespace = ledger.namespace(host)?;
        let address = format!("{}/24", address(index));
        ledger.making(|| -> Result<(), LedgerError> {
            ip(&namespace, "link set lo up")?;
            ip(&namespace, "link add br0 type bridge forward_delay 0")?;
            ip(&namespace, &format!("addr add {address} dev br0"))?;
            ip(&namespace, "link set br0 up")?;
            ip(&namespace, "link add ib0 type bridge forward_delay 0")?;
            ip(&namespace, "link set ib0 up")?;
            if let Some(first) = namespaces.first() {
                let (near, far) = (format!("eth-{}", hosts[0]), format!("eth-{host}"));
                ip(
                    &namespace,
                    &format!("link add {near} type veth peer name {far} netns {first}"),
                )?;
                ip(&namespace, &format!("link set {near} master br0 up"))?;
                ip(first, &format!("link set {far} master br0 up"))?;
            }
            Ok(())
        })?;
        namespaces.push(namespace);
    }
    Ok(namespaces)
}

/// Makes a tap on Ethernet.
///
/// # Errors
/// [`LedgerError`].
pub(super) fn tap(ledger: &Ledger, namespace: &str, name: &str) -> Result<(), LedgerError> {
    ledger.making(|| {
        ip(namespace, &format!("tuntap add {name} mode tap"))?;
        ip(namespace, &format!("link set {name} master br0 up"))
    })
}

/// Takes the link between the first host and `host` down, or up again.
///
/// # Errors
/// [`LedgerError`].
pub(super) fn set_link(first: &str, host: &str, up: bool) -> Result<(), LedgerError> {
    let state = if up { "up" } else { "down" };
    ip(first, &format!("link set eth-{host} {state}"))
}

/// Address of the host with this position on Ethernet.
pub(super) fn address(index: usize) -> String {
    format!("10.77.0.{}", index + 1)
}

fn ip(namespace: &str, words: &str) -> Result<(), LedgerError> {
    let words = words.split(' ');
    command::run("ip", ["-netns", namespace].into_iter().chain(words))?;
    Ok(())
}

//! The list of transports that a rehearsal goes through.

use std::str::FromStr;

use nix::net::if_::InterfaceFlags;
use symvirt_protocol::transport::{Interconnect, Transports};

/// One item of `--over`.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// As the user wrote it.
    pub name: String,
    /// What the gang is asked for.
    pub interconnect: Interconnect,
}

/// The value of one `--over`: a comma-separated list of names, or one `tls@devices`.
#[derive(Clone, PartialEq, Debug)]
pub struct Items(pub Vec<Item>);

/// Why an item is not understood.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "{item:?} is none of tcp, shm, native, fallback, or TLS@DEVICES (as UCX_TLS@UCX_NET_DEVICES)"
)]
pub struct UnknownItem {
    item: String,
}

impl FromStr for Items {
    type Err = UnknownItem;

    fn from_str(text: &str) -> Result<Self, UnknownItem> {
        if text.contains('@') {
            return Ok(Items(vec![item(text)?]));
        }
        text.split(',')
            .map(|name| item(name.trim()))
            .collect::<Result<_, _>>()
            .map(Items)
    }
}

fn item(text: &str) -> Result<Item, UnknownItem> {
    let explicit = |tls: &str, net_devices: &str| {
        Interconnect::Explicit(Transports {
            tls: Some(tls.to_owned()),
            net_devices: Some(net_devices.to_owned()),
        })
    };
    let interconnect = match text {
        "tcp" => explicit("tcp,self", &network_device()),
        "shm" => explicit("sm,self", "all"),
        "native" => Interconnect::Native,
        "fallback" => Interconnect::Fallback,
        _ => match text.split_once('@') {
            Some((tls, devices)) if !tls.is_empty() && !devices.is_empty() => {
                explicit(tls, devices)
            }
            _ => {
                return Err(UnknownItem {
                    item: text.to_owned(),
                });
            }
        },
    };
    Ok(Item {
        name: text.to_owned(),
        interconnect,
    })
}

/// The network device that the processes of this machine reach each other over. UCX 1.20 finds no
/// route over `lo`; every further device makes a switch take longer.
fn network_device() -> String {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut usable = interfaces.filter(|interface| {
        let address = interface.address.as_ref();
        let has_ipv4 = address.is_some_and(|address| address.as_sockaddr_in().is_some());
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let flags = interface.flags;
        has_ipv4 && flags.contains(wanted) && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let found = usable.next().map(|interface| interface.interface_name);
    found.unwrap_or_else(|| "lo".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas_and_a_literal_keeps_its_own() {
        let names: Items = "tcp,shm".parse().expect("known");
        assert_eq!(
            names
                .0
                .iter()
                .map(|item| item.name.as_str())
                .collect::<Vec<_>>(),
            ["tcp", "shm"]
        );
        let literal: Items = "rc,self,sm@rxe0:1".parse().expect("literal");
        let Interconnect::Explicit(transports) = &literal.0[0].interconnect else {
            panic!("{literal:?}")
        };
        assert_eq!(transports.tls.as_deref(), Some("rc,self,sm"));
        assert_eq!(transports.net_devices.as_deref(), Some("rxe0:1"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_is_known() {
        let error = "tcp,infiniband".parse::<Items>().expect_err("unknown");
        assert!(
            error
                .to_string()
                .starts_with("\"infiniband\" is none of tcp, shm")
        );
        assert!("@lo".parse::<Items>().is_err());
        assert!("".parse::<Items>().is_err());
    }
}

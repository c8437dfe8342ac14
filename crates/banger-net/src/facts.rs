//! What the host is like, as far as the guests' network depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use banger_model::slot::{HOST_LINK, WHOLE_NETWORK};

use crate::NetError;
use crate::netlink::{Netlink, RouteTarget};

/// Where a host says which name servers it asks; where the first knows only one on the host
/// itself, the next ones know whom that one asks.
pub(crate) const RESOLVER_FILES: [&str; 4] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/dnsmasq/resolv.conf",
];
/// Of a file of name servers that much is read.
const RESOLVER_FILE_MAX: usize = 64 << 10;
/// A route to half of the Internet is one to the Internet: VPNs have two of those.
const DEFAULT_PREFIX_MAX: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// The networks that the host is in, its own addresses included.
    pub(crate) networks: BTreeSet<(Ipv4Addr, u8)>,
    /// The interfaces through which it reaches the Internet and the name server, with their indexes.
    pub(crate) uplinks: BTreeMap<String, u32>,
    pub(crate) resolver: Option<Resolver>,
}

/// Who answers the guests' questions for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) address: Ipv4Addr,
    /// It is in one of the host's networks.
    pub(crate) nearby: bool,
}

impl Facts {
    pub(crate) fn read(netlink: &mut Netlink) -> Result<Self, NetError> {
        let links = netlink.links().map_err(NetError::kernel("list the interfaces"))?;
        let addresses = netlink
            .addresses()
            .map_err(NetError::kernel("list the addresses"))?;
        let routes = netlink.routes().map_err(NetError::kernel("list the routes"))?;
        let link = |index| links.iter().find(|link| link.index == index);
        let foreign = |index| link(index).is_some_and(|link| !link.loopback && link.name != HOST_LINK);

        let mut own = BTreeSet::new();
        let mut networks = BTreeSet::new();
        for one in addresses {
            // An address of the loopback interface is the host's as any other, but its network
            // is only the host's when it is 127.0.0.0/8, which nobody routes.
            own.insert(one.address);
            if foreign(one.index) {
                networks.insert((masked(one.address, one.prefix), one.prefix));
            } else if !one.address.is_loopback() {
                networks.insert((one.address, 32));
            }
        }
        networks.retain(|(network, _)| !contains(WHOLE_NETWORK, *network));
        let mut uplinks: BTreeMap<_, _> = routes
            .iter()
            .filter(|route| route.prefix <= DEFAULT_PREFIX_MAX)
            .filter_map(|route| match route.target {
                RouteTarget::Via { index, .. } if foreign(index) => link(index),
                _ => None,
            })
            .map(|link| (link.name.clone(), link.index))
            .collect();
        let resolver = RESOLVER_FILES
            .iter()
            .find_map(|path| resolver(&read_bounded(Path::new(path)), &own))
            .map(|address| Resolver {
                address,
                nearby: networks.iter().any(|network| contains(*network, address)),
            });
        if let Some(Resolver { address, .. }) = resolver {
            // Its answers come in there, wherever the Internet is.
            let index = netlink
                .way_to(address)
                .map_err(NetError::kernel("look for the way to the name server"))?;
            let link = index.filter(|index| foreign(*index)).and_then(link);
            uplinks.extend(link.map(|link| (link.name.clone(), link.index)));
        }
        Ok(Self {
            networks,
            uplinks,
            resolver,
        })
    }
}

pub(crate) fn masked(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

pub(crate) fn contains((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    masked(address, prefix) == masked(network, prefix)
}

/// The first name server of a resolv.conf(5) that is IPv4 and not on the host itself.
fn resolver(text: &str, own: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<Ipv4Addr>().ok())
        .find(|address| {
            let unusable = address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast();
            !unusable && !own.contains(address)
        })
}

fn read_bounded(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(RESOLVER_FILE_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_server_that_guests_can_reach_is_taken() {
        let own = BTreeSet::from([Ipv4Addr::new(192, 168, 1, 5)]);
        let text = "# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver\t::1\n\
                    nameservers 2.2.2.2\nnameserver 192.168.1.5\nnameserver 300.1.1.1\n  nameserver 192.168.1.1 # x\n\
                    nameserver 9.9.9.9\n";
        assert_eq!(resolver(text, &own), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(resolver("nameserver 127.0.0.1\noptions edns0\n", &own), None);
        assert_eq!(
            resolver("nameserver 0.0.0.0\nnameserver 224.0.0.251\n", &own),
            None
        );
    }

    #[test]
    fn networks_are_masked() {
        assert_eq!(
            masked(Ipv4Addr::new(203, 0, 113, 77), 24),
            Ipv4Addr::new(203, 0, 113, 0)
        );
        assert_eq!(masked(Ipv4Addr::new(1, 2, 3, 4), 32), Ipv4Addr::new(1, 2, 3, 4));
        assert_eq!(masked(Ipv4Addr::new(1, 2, 3, 4), 0), Ipv4Addr::UNSPECIFIED);
        assert!(contains(
            (Ipv4Addr::new(10, 119, 0, 0), 19),
            Ipv4Addr::new(10, 119, 16, 1)
        ));
        assert!(!contains(
            (Ipv4Addr::new(10, 119, 0, 0), 19),
            Ipv4Addr::new(10, 119, 32, 1)
        ));
    }
}

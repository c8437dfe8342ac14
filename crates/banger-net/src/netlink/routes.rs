use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::Netlink;

/// What marks banger's routes and rules as its own (rtnetlink(7), `rtm_protocol`): unassigned in
/// linux/rtnetlink.h and in iproute2's rt_protos.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(119);

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// A route of the main table, or of another in what [`Netlink::routes`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) target: RouteTarget,
    /// Made by banger.
    pub(crate) ours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteTarget {
    Via {
        gateway: Option<Ipv4Addr>,
        index: u32,
    },
    /// Nowhere: the sender is told that it is forbidden.
    Prohibit,
    Other,
}

/// A rule of the routing policy, of banger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    /// Packets that came in here.
    pub(crate) from_link: String,
    pub(crate) to: Option<(Ipv4Addr, u8)>,
    pub(crate) target: RuleTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleTarget {
    MainTable,
    /// Dropped without a word, as where nothing is forwarded.
    Blackhole,
}

impl Netlink {
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answer = self.dump(&RouteNetlinkMessage::GetAddress(message))?;
        Ok(answer.iter().filter_map(Address::from_message).collect())
    }

    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        tolerate(
            self.change(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            Errno::EXIST,
        )
    }

    /// The unicast and forbidding routes of IPv4, of all tables but the kernel's local one.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answer = self.dump(&RouteNetlinkMessage::GetRoute(message))?;
        Ok(answer.iter().flat_map(Route::from_message).collect())
    }

    /// The interface through which an address is reached.
    pub(crate) fn way_to(&mut self, address: Ipv4Addr) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        let destination = RouteAttribute::Destination(RouteAddress::Inet(address));
        message.attributes.push(destination);
        let answer = match self.get(RouteNetlinkMessage::GetRoute(message)) {
            Err(e)
                if NO_WAY
                    .iter()
                    .any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                None
            }
            other => other?,
        };
        let routes = answer.iter().flat_map(Route::from_message);
        Ok(routes.into_iter().find_map(|route| match route.target {
            RouteTarget::Via { index, .. } => Some(index),
            _ => None,
        }))
    }

    /// Makes a route of banger's in the main table, in place of one to the same network.
    pub(crate) fn set_route(&mut self, route: &Route) -> io::Result<()> {
        self.change(
            RouteNetlinkMessage::NewRoute(route.to_message()),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    pub(crate) fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        tolerate(
            self.change(RouteNetlinkMessage::DelRoute(route.to_message()), 0),
            Errno::SRCH,
        )
    }

    /// Banger's rules.
    pub(crate) fn rules(&mut self) -> io::Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        let answer = self.dump(&RouteNetlinkMessage::GetRule(message))?;
        Ok(answer.iter().filter_map(Rule::from_message).collect())
    }

    pub(crate) fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        tolerate(
            self.change(
                RouteNetlinkMessage::NewRule(rule.to_message()),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            Errno::EXIST,
        )
    }

    pub(crate) fn delete_rule(&mut self, rule: &Rule) -> io::Result<()> {
        tolerate(
            self.change(RouteNetlinkMessage::DelRule(rule.to_message()), 0),
            Errno::NOENT,
        )
    }

    /// Tells an interface once and for all which hardware address an address has.
    pub(crate) fn set_neighbour(&mut self, index: u32, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
        let message = neighbour(index, address, mac);
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    pub(crate) fn delete_neighbour(&mut self, index: u32, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
        let message = neighbour(index, address, mac);
        tolerate(
            self.change(RouteNetlinkMessage::DelNeighbour(message), 0),
            Errno::NOENT,
        )
    }

    /// Tells a bridge once and for all at which port a hardware address is.
    pub(crate) fn set_bridge_entry(&mut self, port: u32, mac: [u8; 6]) -> io::Result<()> {
        /// NUD_REACHABLE and NUD_NOARP: neither the bridge's own address nor one that ages.
        const STATIC: NeighbourState = NeighbourState::Other(0x42);
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        message.header.state = STATIC;
        message.header.flags = NeighbourFlags::Controller;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }
}

/// What the kernel says of an address without a route, or with one that leads nowhere.
const NO_WAY: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];

fn tolerate(result: io::Result<()>, harmless: Errno) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(harmless.raw_os_error()) => Ok(()),
        other => other,
    }
}

fn neighbour(index: u32, address: Ipv4Addr, mac: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

impl Address {
    pub(crate) fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) = message
        else {
            return None;
        };
        // On a point-to-point link IFA_ADDRESS is the other side's; the own is IFA_LOCAL.
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })?;
        Some(Self {
            index: message.header.index,
            address,
            prefix: message.header.prefix_len,
        })
    }
}

impl Route {
    fn from_message(message: &RouteNetlinkMessage) -> Vec<Self> {
        let RouteNetlinkMessage::NewRoute(message) = message else {
            return Vec::new();
        };
        let (mut network, mut gateway, mut links) = (Ipv4Addr::UNSPECIFIED, None, Vec::new());
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => network = *address,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                RouteAttribute::Oif(index) => links.push(*index),
                RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
                _ => {}
            }
        }
        let one = |target| Self {
            network,
            prefix: message.header.destination_prefix_length,
            target,
            ours: message.header.protocol == PROTOCOL,
        };
        match message.header.kind {
            RouteType::Unicast if links.is_empty() => vec![one(RouteTarget::Other)],
            RouteType::Unicast => {
                let via = |index| one(RouteTarget::Via { gateway, index });
                links.into_iter().map(via).collect()
            }
            RouteType::Prohibit => vec![one(RouteTarget::Prohibit)],
            _ => Vec::new(),
        }
    }

    fn to_message(self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: self.prefix,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: PROTOCOL,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        if self.prefix > 0 {
            let network = RouteAddress::Inet(self.network);
            message.attributes.push(RouteAttribute::Destination(network));
        }
        match self.target {
            RouteTarget::Via { gateway, index } => {
                if let Some(gateway) = gateway {
                    let gateway = RouteAddress::Inet(gateway);
                    message.attributes.push(RouteAttribute::Gateway(gateway));
                }
                message.attributes.push(RouteAttribute::Oif(index));
            }
            RouteTarget::Prohibit | RouteTarget::Other => message.header.kind = RouteType::Prohibit,
        }
        message
    }
}

impl Rule {
    fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewRule(message) = message else {
            return None;
        };
        let (mut priority, mut from_link, mut to, mut ours) = (0, String::new(), None, false);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(number) => priority = *number,
                RuleAttribute::Iifname(name) => from_link.clone_from(name),
                RuleAttribute::Destination(IpAddr::V4(address)) => {
                    to = Some((*address, message.header.dst_len));
                }
                RuleAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
                _ => {}
            }
        }
        let target = match message.header.action {
            RuleAction::ToTable => RuleTarget::MainTable,
            RuleAction::Blackhole => RuleTarget::Blackhole,
            _ => return None,
        };
        ours.then_some(Self {
            priority,
            from_link,
            to,
            target,
        })
    }

    fn to_message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Iifname(self.from_link.clone()),
            RuleAttribute::Protocol(PROTOCOL),
        ];
        if let Some((network, prefix)) = self.to {
            message.header.dst_len = prefix;
            message
                .attributes
                .push(RuleAttribute::Destination(IpAddr::V4(network)));
        }
        match self.target {
            RuleTarget::MainTable => {
                message.header.action = RuleAction::ToTable;
                message.header.table = RouteHeader::RT_TABLE_MAIN;
            }
            RuleTarget::Blackhole => message.header.action = RuleAction::Blackhole,
        }
        message
    }
}

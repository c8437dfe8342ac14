use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoTun, InfoVeth,
    LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};

use super::Netlink;

/// IFLA_TUN_OWNER and IFLA_TUN_GROUP of linux/if_link.h.
const TUN_OWNER: u16 = 1;
const TUN_GROUP: u16 = 2;

/// An interface, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    /// Something is at the other end: of a tap, an open queue.
    pub(crate) carrier: bool,
    pub(crate) loopback: bool,
    /// The bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// The other end of a veth pair, by its index in its own namespace.
    pub(crate) peer: Option<u32>,
    pub(crate) kind: LinkKind,
    pub(crate) port: BridgePort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LinkKind {
    Bridge,
    Veth,
    /// A tap or tun with the uid and gid that may open it.
    Tun {
        owner: Option<u32>,
        group: Option<u32>,
    },
    #[default]
    Other,
}

/// What a bridge does at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BridgePort {
    /// No frames to or from other isolated ports.
    pub(crate) isolated: bool,
    /// Takes MAC addresses from what arrives.
    pub(crate) learning: bool,
    /// Sends out what is for an unknown address, for a group, for all.
    pub(crate) flood: bool,
}

impl Default for BridgePort {
    /// The kernel's.
    fn default() -> Self {
        Self {
            isolated: false,
            learning: true,
            flood: true,
        }
    }
}

impl Netlink {
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answer = self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answer.iter().filter_map(Link::from_message).collect())
    }

    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.get(RouteNetlinkMessage::GetLink(message)) {
            Ok(answer) => Ok(answer.as_ref().and_then(Link::from_message)),
            Err(e) if e.raw_os_error() == Some(NO_DEVICE) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A bridge that speaks no protocol of its own: no spanning tree, no multicast.
    pub(crate) fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let options = vec![InfoBridge::MulticastSnooping(false)];
        self.add_link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(options)),
            ]),
        ])
    }

    /// A veth pair, the peer in another namespace.
    pub(crate) fn add_veth(&mut self, name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::NetNsFd(namespace.as_raw_fd()),
        ];
        self.add_link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ])
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.set_link(index, Some(true), Vec::new())
    }

    pub(crate) fn set_down(&mut self, index: u32) -> io::Result<()> {
        self.set_link(index, Some(false), Vec::new())
    }

    pub(crate) fn set_master(&mut self, index: u32, bridge: Option<u32>) -> io::Result<()> {
        self.set_link(index, None, vec![LinkAttribute::Controller(bridge.unwrap_or(0))])
    }

    /// What the bridge does at a port; it comes up with it, and not before.
    pub(crate) fn set_port_up(&mut self, index: u32, port: BridgePort) -> io::Result<()> {
        let options = vec![
            InfoBridgePort::Isolated(port.isolated),
            InfoBridgePort::Learning(port.learning),
            InfoBridgePort::UnicastFlood(port.flood),
            InfoBridgePort::MulticastFlood(port.flood),
            InfoBridgePort::BroadcastFlood(port.flood),
        ];
        self.set_link(
            index,
            Some(true),
            vec![LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(options)),
            ])],
        )
    }

    /// Deletes an interface; one that is not there is no error.
    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.change(RouteNetlinkMessage::DelLink(message), 0) {
            Err(e) if e.raw_os_error() == Some(NO_DEVICE) => Ok(()),
            other => other,
        }
    }

    fn add_link(&mut self, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn set_link(&mut self, index: u32, up: Option<bool>, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header = LinkHeader {
            index,
            ..LinkHeader::default()
        };
        if let Some(up) = up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        message.attributes = attributes;
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }
}

/// `ENODEV`.
const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();

impl Link {
    pub(crate) fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else {
            return None;
        };
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Controller(index) => link.master = Some(*index).filter(|index| *index != 0),
                LinkAttribute::Link(index) => link.peer = Some(*index).filter(|index| *index != 0),
                LinkAttribute::LinkInfo(info) => link.take_info(info),
                _ => {}
            }
        }
        Some(link)
    }

    fn take_info(&mut self, info: &[LinkInfo]) {
        for part in info {
            match part {
                LinkInfo::Kind(InfoKind::Bridge) => self.kind = LinkKind::Bridge,
                LinkInfo::Kind(InfoKind::Veth) => self.kind = LinkKind::Veth,
                LinkInfo::Kind(InfoKind::Tun) => {
                    self.kind = LinkKind::Tun {
                        owner: None,
                        group: None,
                    };
                }
                LinkInfo::Data(InfoData::Tun(data)) => {
                    self.kind = LinkKind::Tun {
                        owner: tun_number(data, TUN_OWNER),
                        group: tun_number(data, TUN_GROUP),
                    };
                }
                LinkInfo::PortData(InfoPortData::BridgePort(options)) => self.port = port(options),
                _ => {}
            }
        }
    }
}

fn port(options: &[InfoBridgePort]) -> BridgePort {
    let mut port = BridgePort {
        flood: false,
        ..BridgePort::default()
    };
    for option in options {
        match option {
            InfoBridgePort::Isolated(isolated) => port.isolated = *isolated,
            InfoBridgePort::Learning(learning) => port.learning = *learning,
            InfoBridgePort::UnicastFlood(flood)
            | InfoBridgePort::MulticastFlood(flood)
            | InfoBridgePort::BroadcastFlood(flood) => port.flood |= *flood,
            _ => {}
        }
    }
    port
}

fn tun_number(data: &[InfoTun], kind: u16) -> Option<u32> {
    data.iter().find_map(|attribute| match attribute {
        InfoTun::Other(nla) if nla.kind() == kind => {
            let mut value = [0; 4];
            (nla.value_len() == value.len()).then(|| {
                DefaultNla::emit_value(nla, &mut value);
                u32::from_ne_bytes(value)
            })
        }
        _ => None,
    })
}

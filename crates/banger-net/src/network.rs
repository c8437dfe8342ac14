//! The network as a whole: steps in the order in which they are safe, each of which looks first
//! and changes only what differs. After any of them the process may end: nothing is open that
//! should be closed, and the next run goes on from there.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use banger_model::slot::{
    GuestBridge, HOST_ADDRESS, HOST_LINK, LINK_PREFIX, UPLINK, UPLINK_ADDRESS, WHOLE_NETWORK,
};

use crate::facts::{Facts, Resolver};
use crate::namespace::{self, Inside};
use crate::netlink::{Link, LinkKind, Netlink, Route, RouteTarget};
use crate::record::Record;
use crate::{Changed, NetError, forwarding, rules, sysctl, tap};

/// The steps of [`Network::ensure`], in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The namespace is strict before it has interfaces.
    Settings,
    /// It is filtered before anything can go through it.
    GuestRules,
    Bridges,
    HostRules,
    /// The one link between the two namespaces.
    Link,
    /// The host's networks are closed before there is a way out.
    Closed,
    WayOut,
    HostRoute,
    /// The host forwards for the guests, and for nobody else who could not before.
    Forwarding,
}

impl Step {
    pub const ALL: [Self; 9] = [
        Self::Settings,
        Self::GuestRules,
        Self::Bridges,
        Self::HostRules,
        Self::Link,
        Self::Closed,
        Self::WayOut,
        Self::HostRoute,
        Self::Forwarding,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "the namespace's settings",
            Self::GuestRules => "the guests' rules",
            Self::Bridges => "the bridges",
            Self::HostRules => "the host's table",
            Self::Link => "the link",
            Self::Closed => "the closed networks",
            Self::WayOut => "the guests' routes",
            Self::HostRoute => "the host's route",
            Self::Forwarding => "forwarding",
        }
    }
}

/// The network, seen from the host's namespace, in which it has to be made.
pub struct Network {
    pub(crate) inside: Inside,
    pub(crate) host: Netlink,
    pub(crate) guests: Netlink,
    pub(crate) record: Record,
    /// That the tables are about.
    resolver: Option<Resolver>,
}

impl Network {
    /// Makes the namespace if it is not there, and a thread in it. Needs CAP_SYS_ADMIN, which
    /// nothing that comes later does.
    ///
    /// # Errors
    /// Without the capability, or when `/run` cannot be written.
    pub fn open() -> Result<Self, NetError> {
        let mut record = Record::read()?;
        if namespace::ensure(&mut record)? {
            // Its tables went with the old one.
            record.guest_tables = None;
        }
        record.write()?;
        let inside = Inside::start()?;
        let guests = inside.run(Netlink::new)?;
        Ok(Self {
            inside,
            host: Netlink::new()?,
            guests,
            record,
            resolver: None,
        })
    }

    /// Makes everything as it should be, and returns the steps in which something was not.
    ///
    /// # Errors
    /// Of the first step that failed; what it would have opened is closed.
    pub fn ensure(&mut self) -> Result<Vec<Step>, NetError> {
        self.take(Step::ALL)
    }

    fn take(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<Vec<Step>, NetError> {
        let mut changed = Vec::new();
        for step in steps {
            if self.step(step)? {
                changed.push(step);
            }
        }
        Ok(changed)
    }

    /// Makes everything as it should be after a change: the tables are only looked at when it was
    /// in them, or when they say something else by now.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn mend(&mut self, changed: Changed) -> Result<Vec<Step>, NetError> {
        let other_resolver = Facts::read(&mut self.host)?.resolver != self.resolver;
        let steps = Step::ALL.into_iter().filter(|step| match step {
            Step::GuestRules => changed.guest_tables || other_resolver,
            Step::HostRules => changed.host_table || other_resolver,
            _ => true,
        });
        self.take(steps)
    }

    /// One step of [`Self::ensure`]; those before it must have been taken. Says whether there was
    /// something to do.
    ///
    /// # Errors
    /// When the kernel or nft refuses.
    pub fn step(&mut self, step: Step) -> Result<bool, NetError> {
        match step {
            Step::Settings => self.settings(),
            Step::GuestRules => self.guest_rules(),
            Step::Bridges => self.bridges(),
            Step::HostRules => self.host_rules(),
            Step::Link => self.link(),
            Step::Closed => self.closed(),
            Step::WayOut => self.way_out(),
            Step::HostRoute => self.host_route(),
            Step::Forwarding => forwarding::ensure(&mut self.host, &mut self.record),
        }
    }

    /// Takes the link down: the guests' last way out when the network cannot be mended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn close(&mut self) -> Result<(), NetError> {
        match self.host_link()? {
            Some(link) => self
                .host
                .set_down(link.index)
                .map_err(NetError::kernel(format!("take {HOST_LINK} down"))),
            None => Ok(()),
        }
    }

    /// Runs something on the thread in the namespace too, such as giving up capabilities, which
    /// are a thread's own.
    ///
    /// # Errors
    /// What it returns.
    pub fn on_every_thread(
        &self,
        work: impl Fn() -> Result<(), NetError> + Clone + Send + 'static,
    ) -> Result<(), NetError> {
        work()?;
        self.inside.run(work)
    }

    fn settings(&mut self) -> Result<bool, NetError> {
        let changed = self.inside.run(|| sysctl::ensure(sysctl::GUESTS))?;
        Ok(ensure_up(&mut self.guests, "lo")? || changed)
    }

    fn guest_rules(&mut self) -> Result<bool, NetError> {
        self.resolver = Facts::read(&mut self.host)?.resolver;
        let tables = rules::guests(self.resolver);
        let before = self.record.guest_tables;
        let Some(loaded) = self.inside.run(move || tables.ensure(before))? else {
            return Ok(false);
        };
        self.record.guest_tables = Some(loaded);
        self.record.write()?;
        Ok(true)
    }

    fn bridges(&mut self) -> Result<bool, NetError> {
        let mut changed = false;
        let mut made = Vec::new();
        for bridge in GuestBridge::ALL {
            let name = bridge.name();
            if find(&mut self.guests, name)?.is_none() {
                self.guests
                    .add_bridge(name, bridge_mac(bridge))
                    .map_err(NetError::kernel(format!("make the bridge {name}")))?;
                changed = true;
                made.push(bridge);
            }
            changed |= ensure_address(&mut self.guests, name, bridge.gateway(), bridge.network().1)?;
            changed |= ensure_up(&mut self.guests, name)?;
        }
        // Taps without a bridge were on the one that somebody has deleted. Had both been, only
        // the helper knows.
        if let [bridge] = made[..] {
            self.inside.run(move || adopt_taps(bridge))?;
        }
        Ok(changed)
    }

    fn host_rules(&mut self) -> Result<bool, NetError> {
        let tables = rules::host(self.resolver);
        let Some(loaded) = tables.ensure(self.record.host_table)? else {
            return Ok(false);
        };
        self.record.host_table = Some(loaded);
        self.record.write()?;
        Ok(true)
    }

    fn link(&mut self) -> Result<bool, NetError> {
        let mut changed = self.ensure_pair()?;
        changed |= sysctl::ensure(sysctl::HOST_LINK)?;
        changed |= ensure_address(&mut self.guests, UPLINK, UPLINK_ADDRESS, LINK_PREFIX)?;
        changed |= ensure_up(&mut self.guests, UPLINK)?;
        changed |= ensure_address(&mut self.host, HOST_LINK, HOST_ADDRESS, LINK_PREFIX)?;
        changed |= ensure_up(&mut self.host, HOST_LINK)?;
        Ok(changed)
    }

    /// The two ends, of each other. What remains of a pair with a lost namespace is deleted.
    fn ensure_pair(&mut self) -> Result<bool, NetError> {
        let ours = self.host_link()?;
        let theirs = find(&mut self.guests, UPLINK)?;
        if let (Some(ours), Some(theirs)) = (&ours, &theirs)
            && ours.kind == LinkKind::Veth
            && ours.peer == Some(theirs.index)
            && theirs.peer == Some(ours.index)
        {
            return Ok(false);
        }
        for (netlink, link) in [(&mut self.host, ours), (&mut self.guests, theirs)] {
            if let Some(link) = link {
                netlink
                    .delete_link(link.index)
                    .map_err(NetError::kernel(format!("delete {}", link.name)))?;
            }
        }
        self.host
            .add_veth(HOST_LINK, UPLINK, self.inside.file().as_fd())
            .map_err(NetError::kernel(format!("make {HOST_LINK}")))?;
        Ok(true)
    }

    /// Routes inside that lead nowhere: to every network that the host is in. They stand whatever
    /// happens to the host's firewall.
    fn closed(&mut self) -> Result<bool, NetError> {
        let facts = Facts::read(&mut self.host)?;
        let wanted = facts.networks;
        let routes = self
            .guests
            .routes()
            .map_err(NetError::kernel("list the guests' routes"))?;
        let current: BTreeSet<_> = routes
            .iter()
            .filter(|route| route.ours && route.target == RouteTarget::Prohibit)
            .map(|route| (route.network, route.prefix))
            .collect();
        // First close, then open.
        for network in wanted.difference(&current) {
            self.guests
                .set_route(&prohibited(*network))
                .map_err(NetError::kernel("close a network to the guests"))?;
        }
        for network in current.difference(&wanted) {
            self.guests
                .delete_route(&prohibited(*network))
                .map_err(NetError::kernel("open a network to the guests"))?;
        }
        Ok(wanted != current)
    }

    fn way_out(&mut self) -> Result<bool, NetError> {
        let uplink = find(&mut self.guests, UPLINK)?.ok_or(NetError::NoLink(UPLINK))?;
        let target = RouteTarget::Via {
            gateway: Some(HOST_ADDRESS),
            index: uplink.index,
        };
        let mut wanted = vec![Route {
            network: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            target,
            ours: true,
        }];
        if let Some(resolver) = Facts::read(&mut self.host)?.resolver.filter(|one| one.nearby) {
            wanted.push(Route {
                network: resolver.address,
                prefix: 32,
                target,
                ours: true,
            });
        }
        ensure_routes(&mut self.guests, &wanted)
    }

    fn host_route(&mut self) -> Result<bool, NetError> {
        let link = self.host_link()?.ok_or(NetError::NoLink(HOST_LINK))?;
        let (network, prefix) = WHOLE_NETWORK;
        let target = RouteTarget::Via {
            gateway: Some(UPLINK_ADDRESS),
            index: link.index,
        };
        ensure_routes(
            &mut self.host,
            &[Route {
                network,
                prefix,
                target,
                ours: true,
            }],
        )
    }

    fn host_link(&mut self) -> Result<Option<Link>, NetError> {
        find(&mut self.host, HOST_LINK)
    }
}

fn adopt_taps(bridge: GuestBridge) -> Result<(), NetError> {
    let taps = tap::list()?;
    let mut lost = taps.iter().filter(|tap| tap.bridge.is_none());
    lost.try_for_each(|tap| tap::make(tap.slot, bridge))
}

/// The same on every host and after every restart, so that guests keep what they know of it.
fn bridge_mac(bridge: GuestBridge) -> [u8; 6] {
    [0x02, 0x62, 0x6e, 0x67, 0xff, bridge.number()]
}

fn prohibited((network, prefix): (Ipv4Addr, u8)) -> Route {
    Route {
        network,
        prefix,
        target: RouteTarget::Prohibit,
        ours: true,
    }
}

pub(crate) fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, NetError> {
    netlink
        .link(name)
        .map_err(NetError::kernel(format!("look for {name}")))
}

fn ensure_up(netlink: &mut Netlink, name: &'static str) -> Result<bool, NetError> {
    let link = find(netlink, name)?.ok_or(NetError::NoLink(name))?;
    if link.up {
        return Ok(false);
    }
    netlink
        .set_up(link.index)
        .map_err(NetError::kernel(format!("bring {name} up")))?;
    Ok(true)
}

fn ensure_address(
    netlink: &mut Netlink,
    name: &'static str,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<bool, NetError> {
    let index = find(netlink, name)?.ok_or(NetError::NoLink(name))?.index;
    let addresses = netlink
        .addresses()
        .map_err(NetError::kernel("list the addresses"))?;
    let is_there = addresses
        .iter()
        .any(|one| one.index == index && one.address == address && one.prefix == prefix);
    if is_there {
        return Ok(false);
    }
    netlink
        .add_address(index, address, prefix)
        .map_err(NetError::kernel(format!("give {name} its address")))?;
    Ok(true)
}

/// Makes banger's unicast routes exactly the wanted ones.
fn ensure_routes(netlink: &mut Netlink, wanted: &[Route]) -> Result<bool, NetError> {
    let routes = netlink.routes().map_err(NetError::kernel("list the routes"))?;
    let current: Vec<_> = routes
        .into_iter()
        .filter(|route| route.ours && route.target != RouteTarget::Prohibit)
        .collect();
    let mut changed = false;
    for route in current.iter().filter(|route| !wanted.contains(route)) {
        netlink
            .delete_route(route)
            .map_err(NetError::kernel("delete a route"))?;
        changed = true;
    }
    for route in wanted.iter().filter(|route| !current.contains(route)) {
        netlink
            .set_route(route)
            .map_err(NetError::kernel("make a route"))?;
        changed = true;
    }
    Ok(changed)
}

//! Whether the network is there, as far as it can be seen from inside its namespace.

use banger_model::slot::{GuestBridge, NETWORK_UNIT, UPLINK, UPLINK_ADDRESS};

use crate::NetError;
use crate::netlink::{BRIDGE, INET, LinkKind, Netlink, families_of};
use crate::nft::TABLE;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Two or three words.
    pub name: String,
    pub ok: bool,
    /// What was seen, and what to do when it is not well.
    pub detail: String,
}

/// The index of the host's end of the link, by which the host's resolver knows it. To be called
/// inside the namespace.
///
/// # Errors
/// [`NetError::NoLink`] without the network.
pub fn host_link_index() -> Result<u32, NetError> {
    let link = Netlink::new()?
        .link(UPLINK)
        .map_err(NetError::kernel(format!("look for {UPLINK}")))?;
    link.and_then(|link| link.peer).ok_or(NetError::NoLink(UPLINK))
}

/// Looks at the bridges, the link and the filter. To be called inside the namespace.
pub fn check() -> Vec<Check> {
    let mut checks: Vec<_> = GuestBridge::ALL.into_iter().map(bridge).collect();
    checks.push(uplink());
    checks.push(filter());
    checks
}

fn bridge(bridge: GuestBridge) -> Check {
    let name = bridge.name();
    let state = || -> Result<(bool, String), NetError> {
        let mut netlink = Netlink::new()?;
        let link = netlink
            .link(name)
            .map_err(NetError::kernel(format!("look for {name}")))?;
        let Some(link) = link.filter(|link| link.kind == LinkKind::Bridge) else {
            return Ok((false, NetError::NoBridge(bridge).to_string()));
        };
        let addresses = netlink.addresses().map_err(NetError::kernel("list addresses"))?;
        let has_address = addresses
            .iter()
            .any(|one| one.index == link.index && one.address == bridge.gateway());
        Ok((
            link.up && has_address,
            format!("{} {}", bridge.gateway(), if link.up { "up" } else { "down" }),
        ))
    };
    make(&format!("bridge {name}"), state())
}

fn uplink() -> Check {
    let state = || -> Result<(bool, String), NetError> {
        let link = Netlink::new()?
            .link(UPLINK)
            .map_err(NetError::kernel(format!("look for {UPLINK}")))?;
        Ok(match link {
            Some(link) if link.up && link.carrier => (true, format!("{UPLINK_ADDRESS} up")),
            Some(_) => (false, format!("{UPLINK} is down")),
            None => (false, NetError::NoLink(UPLINK).to_string()),
        })
    };
    make("link to the host", state())
}

fn filter() -> Check {
    let state = || -> Result<(bool, String), NetError> {
        let families = families_of(TABLE).map_err(NetError::kernel("list the tables"))?;
        let missing = [(BRIDGE, "bridge"), (INET, "inet")]
            .into_iter()
            .find(|(family, _)| !families.contains(family));
        Ok(match missing {
            None => (true, format!("bridge {TABLE} and inet {TABLE}")),
            Some((_, family)) => (
                false,
                format!("The table {family} {TABLE} does not exist: restart {NETWORK_UNIT}"),
            ),
        })
    };
    make("guests' filter", state())
}

fn make(name: &str, state: Result<(bool, String), NetError>) -> Check {
    let (ok, detail) = state.unwrap_or_else(|e| (false, e.to_string()));
    Check {
        name: name.to_owned(),
        ok,
        detail,
    }
}

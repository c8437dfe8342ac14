//! The taps of the slots, in the network namespace of the calling thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use banger_model::slot::{GuestBridge, SLOTS, Slot};

use crate::NetError;
use crate::netlink::{BridgePort, Link, LinkKind, Netlink};

/// What every tap is to its bridge. The guest's hardware address is entered by hand, so that
/// nothing has to be learnt from a guest and nothing for one guest is sent to all.
const PORT: BridgePort = BridgePort {
    isolated: true,
    learning: false,
    flood: false,
};

/// A tap that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapState {
    pub slot: Slot,
    pub bridge: Option<GuestBridge>,
    pub up: bool,
    /// A VMM has its queue open.
    pub in_use: bool,
}

/// Makes the slot's tap, or mends it: persistent, for the slot's uid and gid alone, up, an
/// isolated port of the bridge. A tap in use on another bridge is moved.
///
/// # Errors
/// [`NetError::NoBridge`] without the network, [`NetError::ForeignTap`] when its name is taken.
pub fn make(slot: Slot, bridge: GuestBridge) -> Result<(), NetError> {
    let mut netlink = Netlink::new()?;
    let bridge_index = find(&mut netlink, bridge.name())?
        .filter(|link| link.kind == LinkKind::Bridge)
        .ok_or(NetError::NoBridge(bridge))?
        .index;
    let name = slot.tap();
    let link = match find(&mut netlink, &name)? {
        Some(link) => link,
        None => create(&mut netlink, slot)?,
    };
    let ours = LinkKind::Tun {
        owner: Some(slot.uid()),
        group: Some(slot.uid()),
    };
    if link.kind != ours {
        return Err(NetError::ForeignTap(slot));
    }
    if link.master == Some(bridge_index) && link.port == PORT && link.up {
        return Ok(());
    }
    if link.master != Some(bridge_index) {
        netlink
            .set_master(link.index, Some(bridge_index))
            .map_err(NetError::kernel(format!(
                "put {name} on the bridge {}",
                bridge.name()
            )))?;
    }
    netlink
        .set_bridge_entry(link.index, slot.mac())
        .and_then(|()| netlink.set_neighbour(bridge_index, slot.address(bridge), slot.mac()))
        .and_then(|()| netlink.set_port_up(link.index, PORT))
        .map_err(NetError::kernel(format!("configure {name}")))
}

/// Removes the slot's tap; one that is not there is no error. A VMM that has it open keeps a
/// dead queue.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(slot: Slot) -> Result<(), NetError> {
    let mut netlink = Netlink::new()?;
    let name = slot.tap();
    if let Some(link) = find(&mut netlink, &name)? {
        netlink
            .delete_link(link.index)
            .map_err(NetError::kernel(format!("delete {name}")))?;
    }
    for bridge in GuestBridge::ALL {
        if let Some(link) = find(&mut netlink, bridge.name())? {
            netlink
                .delete_neighbour(link.index, slot.address(bridge), slot.mac())
                .map_err(NetError::kernel(format!("forget the guest behind {name}")))?;
        }
    }
    Ok(())
}

/// Opens the queue of the slot's tap, for QEMU's `-netdev tap,fd=N,vhost=off`: non-blocking, with
/// virtio headers, closed on exec.
///
/// # Errors
/// [`NetError::NoTap`] before [`make`], [`NetError::TapInUse`] while a VMM has it.
pub fn open_queue(slot: Slot) -> Result<OwnedFd, NetError> {
    let name = slot.tap();
    let mut netlink = Netlink::new()?;
    if find(&mut netlink, &name)?.is_none() {
        return Err(NetError::NoTap(slot));
    }
    let open = || NetError::kernel(format!("open {name}"));
    let queue = match banger_sys::tap::open(&name) {
        Ok(queue) => queue,
        Err(e) if e.raw_os_error() == Some(BUSY) => return Err(NetError::TapInUse(slot)),
        Err(e) => return Err(open()(e)),
    };
    // It went away meanwhile, and opening made a passing one.
    if !banger_sys::tap::is_persistent(queue.as_fd()).map_err(open())? {
        return Err(NetError::NoTap(slot));
    }
    rustix::io::ioctl_fionbio(&queue, true).map_err(|e| open()(e.into()))?;
    Ok(queue)
}

/// All slots' taps that exist.
///
/// # Errors
/// When the kernel does not answer.
pub fn list() -> Result<Vec<TapState>, NetError> {
    let mut netlink = Netlink::new()?;
    let links = netlink.links().map_err(NetError::kernel("list the interfaces"))?;
    let bridge_of = |index: u32| {
        let name = &links.iter().find(|link| link.index == index)?.name;
        GuestBridge::ALL.into_iter().find(|bridge| bridge.name() == name)
    };
    let state = |link: &Link| {
        Some(TapState {
            slot: slot_of(&link.name)?,
            bridge: link.master.and_then(bridge_of),
            up: link.up,
            in_use: link.carrier,
        })
    };
    let mut taps: Vec<_> = links.iter().filter_map(state).collect();
    taps.sort_by_key(|tap| tap.slot);
    Ok(taps)
}

/// The slot whose tap has this name.
fn slot_of(name: &str) -> Option<Slot> {
    let number = name.strip_prefix("bt")?.parse().ok()?;
    let slot = (number < SLOTS).then(|| Slot::new(number).ok())??;
    // "bt01" and "bt+1" are somebody else's.
    (slot.tap() == name).then_some(slot)
}

fn create(netlink: &mut Netlink, slot: Slot) -> Result<Link, NetError> {
    let name = slot.tap();
    banger_sys::tap::open(&name)
        .and_then(|tap| banger_sys::tap::persist(tap.as_fd(), slot.uid(), slot.uid()))
        .map_err(NetError::kernel(format!("make {name}")))?;
    find(netlink, &name)?.ok_or(NetError::NoTap(slot))
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, NetError> {
    netlink
        .link(name)
        .map_err(|e: io::Error| NetError::kernel(format!("look for {name}"))(e))
}

/// `EBUSY`.
const BUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_taps_of_slots() {
        for slot in Slot::all() {
            assert_eq!(slot_of(&slot.tap()), Some(slot));
        }
        for name in [
            "bt",
            "bt512",
            "bt01",
            "bt+1",
            "bt-1",
            "eth0",
            "bt1 ",
            "bt99999999999",
        ] {
            assert_eq!(slot_of(name), None, "{name:?}");
        }
    }
}

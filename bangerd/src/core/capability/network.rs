//! The guest's network. In system mode it is a slot's tap on one of banger's bridges; else it is
//! QEMU's user network, with no interface on the host and nothing to clean up.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::guest::{AGENT_PORT, GuestNetwork};
use banger_model::slot::HOST_ADDRESS;
use banger_model::{GuestBridge, NetworkMode, VmId};
use banger_store::VmRecord;
use banger_vmm::{Network as Connection, TapNetwork, UserNetwork};

use super::{Capability, Parts, Site};
use crate::core::registry::Core;

/// The guest's end of QEMU's user network, whose addresses are always these.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const PREFIX: u8 = 24;

pub(super) struct Network;

#[async_trait]
impl Capability for Network {
    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let bridge = bridge_of(site.vm.spec.network);
        let network = match site.core.hold_slot(site.vm.id, bridge).await? {
            // Its queue is opened by who launches.
            Some(held) => Connection::Tap(TapNetwork {
                name: held.slot.tap(),
                queue: None,
                mac: held.slot.mac(),
            }),
            None => Connection::User(UserNetwork {
                restrict: site.vm.spec.network == NetworkMode::None,
                mac: mac_of(site.vm.id),
                guest: ADDRESS,
                agent_port: AGENT_PORT,
            }),
        };
        parts.fill(|parts| parts.network = Some(network));
        Ok(())
    }

    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        core.give_back(id).await
    }
}

fn bridge_of(network: NetworkMode) -> GuestBridge {
    match network {
        NetworkMode::Public => GuestBridge::Public,
        NetworkMode::None => GuestBridge::Closed,
    }
}

/// The guest's side of it. A network that reaches nothing has no resolver, and no gateway where
/// the host is reached without, so that programs in the guest fail at once instead of waiting.
pub(super) fn identity(vm: &VmRecord) -> GuestNetwork {
    let public = vm.spec.network == NetworkMode::Public;
    if let Some(held) = vm.slot {
        return GuestNetwork {
            mac: mac_text(held.slot.mac()),
            address: held.slot.address(held.bridge).into(),
            prefix: held.bridge.network().1,
            // On the closed bridge too: by it the guest answers the host, and nobody else does.
            gateway: Some(held.bridge.gateway().into()),
            dns: if public {
                vec![HOST_ADDRESS.into()]
            } else {
                Vec::new()
            },
        };
    }
    GuestNetwork {
        mac: vm.mac.clone(),
        address: ADDRESS.into(),
        prefix: PREFIX,
        gateway: public.then_some(GATEWAY.into()),
        dns: if public { vec![RESOLVER.into()] } else { Vec::new() },
    }
}

/// Lower-case, colon-separated.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    let pairs: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// A MAC of QEMU's range with 24 bits of the id: enough, each user network has one guest.
pub(crate) fn mac_of(id: VmId) -> [u8; 6] {
    let [a, b, c, ..] = *id.as_bytes();
    [0x52, 0x54, 0x00, a, b, c]
}

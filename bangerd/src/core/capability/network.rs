//! User-mode networking: no interface on the host and nothing to clean up.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::guest::{AGENT_PORT, GuestNetwork};
use banger_model::{NetworkMode, VmId};
use banger_store::VmRecord;
use banger_vmm::{Network as Connection, UserNetwork};

use super::{Capability, Parts, Site};

/// The guest's end of QEMU's user network, whose addresses are always these.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const PREFIX: u8 = 24;

pub(super) struct Network;

#[async_trait]
impl Capability for Network {
    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let network = UserNetwork {
            restrict: site.vm.spec.network == NetworkMode::None,
            mac: mac_of(site.vm.id),
            guest: ADDRESS,
            agent_port: AGENT_PORT,
        };
        parts.fill(|parts| parts.network = Some(Connection::User(network)));
        Ok(())
    }
}

/// The guest's side of it. A network that reaches nothing has no gateway and no resolver, so
/// that programs in the guest fail at once instead of waiting.
pub(super) fn identity(vm: &VmRecord) -> GuestNetwork {
    let public = vm.spec.network == NetworkMode::Public;
    GuestNetwork {
        mac: vm.mac.clone(),
        address: ADDRESS.into(),
        prefix: PREFIX,
        gateway: public.then_some(GATEWAY.into()),
        dns: if public { vec![RESOLVER.into()] } else { Vec::new() },
    }
}

/// A MAC of QEMU's range with 24 bits of the id: enough, each user network has one guest.
pub(crate) fn mac_of(id: VmId) -> [u8; 6] {
    let [a, b, c, ..] = *id.as_bytes();
    [0x52, 0x54, 0x00, a, b, c]
}

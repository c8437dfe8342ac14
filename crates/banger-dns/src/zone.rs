//! Which names there are.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use banger_model::VmName;
use banger_model::slot::WHOLE_NETWORK;

/// The domain of all VMs, as the only label.
pub const DOMAIN: &str = "vm";

/// A snapshot of names and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    addresses: BTreeMap<String, Ipv4Addr>,
    names: BTreeMap<Ipv4Addr, String>,
}

impl Zone {
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The address of a VM by its name without the domain, in lower case.
    pub(crate) fn address(&self, name: &str) -> Option<Ipv4Addr> {
        self.addresses.get(name).copied()
    }

    /// The name of the VM at an address, without the domain.
    pub(crate) fn name(&self, address: Ipv4Addr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }
}

impl FromIterator<(VmName, Ipv4Addr)> for Zone {
    fn from_iter<I: IntoIterator<Item = (VmName, Ipv4Addr)>>(vms: I) -> Self {
        let mut zone = Self::default();
        for (name, address) in vms {
            zone.names.insert(address, name.to_string());
            zone.addresses.insert(name.to_string(), address);
        }
        zone
    }
}

/// Whether an address is of banger's network, of which nobody else knows names.
pub fn is_ours(address: Ipv4Addr) -> bool {
    let (network, prefix) = WHOLE_NETWORK;
    let shift = 32 - u32::from(prefix);
    address.to_bits() >> shift == network.to_bits() >> shift
}

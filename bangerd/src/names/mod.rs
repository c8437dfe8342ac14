//! Names of VMs for the host: while VMs of system mode run, a DNS server at the host's end of
//! their network answers for `<vm>.vm`, and the helper has the host's resolver ask it.

mod keep;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use banger_bus::VmInfo;
use banger_dns::{Zone, is_ours};
use banger_model::config::UserPort;
use banger_model::slot::HOST_ADDRESS;
use banger_model::{VmId, VmName};
use tokio::sync::watch;

use crate::helper::Helper;

/// The names of the VMs that run now.
#[derive(Clone)]
pub(crate) struct Names(Arc<Shared>);

struct Shared {
    vms: Mutex<BTreeMap<VmId, (VmName, Ipv4Addr)>>,
    zone: watch::Sender<Arc<Zone>>,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            vms: Mutex::default(),
            zone: watch::Sender::default(),
        }))
    }

    /// Takes note of a VM as it is. One without an address in our network has no name.
    pub(crate) fn set(&self, id: VmId, info: &VmInfo) {
        let address = info.address.parse().ok().filter(|address| is_ours(*address));
        let named = address.and_then(|address| Some((info.name.parse().ok()?, address)));
        self.change(|vms| match named {
            Some(named) => vms.insert(id, named),
            None => vms.remove(&id),
        });
    }

    pub(crate) fn remove(&self, id: VmId) {
        self.change(|vms| vms.remove(&id));
    }

    /// Serves the names whenever there are any, at a port of the kernel's choice unless one is
    /// wanted. Never ends.
    pub(crate) async fn serve(self, wanted: Option<UserPort>, helper: Helper) {
        let port = wanted.map_or(0, UserPort::number);
        keep::keep(&self.0.zone, (HOST_ADDRESS, port), &helper).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<VmId, (VmName, Ipv4Addr)>) -> T) {
        let mut vms = self.0.vms.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut vms);
        let zone: Zone = vms.values().cloned().collect();
        // Under the lock: the last change is the last that is told.
        self.0.zone.send_if_modified(|told| {
            let differs = **told != zone;
            if differs {
                *told = Arc::new(zone);
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::fake::vm;

    #[test]
    fn who_runs_in_our_network_has_a_name() {
        let names = Names::new();
        let mut zone = names.0.zone.subscribe();
        let (a, b) = (VmId::from_bytes([1; 16]), VmId::from_bytes([2; 16]));
        let at = |name: &str, address: &str| VmInfo {
            address: address.to_owned(),
            ..vm(name)
        };
        names.set(a, &at("a", "127.0.0.1"));
        names.set(b, &at("b", ""));
        assert!(!zone.has_changed().unwrap());
        names.set(b, &at("b", "10.119.0.16"));
        assert_eq!(zone.borrow_and_update().len(), 1);
        // What does not matter is not told again.
        names.set(b, &at("b", "10.119.0.16"));
        assert!(!zone.has_changed().unwrap());
        names.set(a, &at("a", "10.119.8.17"));
        names.set(b, &at("b", ""));
        assert_eq!(zone.borrow_and_update().len(), 1);
        names.remove(a);
        assert!(zone.borrow_and_update().is_empty());
    }
}

//! The guest's network, static: up before the agent listens, with nothing to wait for.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use banger_model::guest::GuestNetwork;

use super::netlink::Netlink;
use super::uevent::Events;

/// The interface is there as soon as its module is loaded, as a rule.
const LIMIT: Duration = Duration::from_secs(5);

/// Brings up `lo` and the interface with the wanted MAC.
pub(super) fn configure(wanted: &GuestNetwork, events: &mut Events) -> io::Result<()> {
    let netlink = Netlink::open()?;
    netlink.link_up(1)?;
    let sys = Path::new("/sys/class/net");
    let Some((index, name)) = events.wait_for(LIMIT, || Ok(look(sys, &wanted.mac)))? else {
        let mac = &wanted.mac;
        return Err(io::Error::other(format!("No interface has the MAC {mac}")));
    };
    if wanted.address.is_ipv4() {
        // Nobody asked for IPv6: no address and no route from whoever announces one.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0");
    }
    netlink.address(index, wanted.address, wanted.prefix)?;
    netlink.link_up(index)?;
    if let Some(gateway) = wanted.gateway {
        netlink.default_route(index, gateway)?;
    }
    Ok(())
}

/// The index and the name of the interface with this MAC.
fn look(sys: &Path, mac: &str) -> Option<(u32, String)> {
    fs::read_dir(sys).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let path = entry.path();
        let found = fs::read_to_string(path.join("address")).ok()?;
        if !found.trim_end().eq_ignore_ascii_case(mac) {
            return None;
        }
        let index = fs::read_to_string(path.join("ifindex")).ok()?;
        let name = entry.file_name().into_string().ok()?;
        Some((index.trim_end().parse().ok()?, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_mac() {
        let sys = tempfile::tempdir().unwrap();
        for (name, mac, index) in [
            ("lo", "00:00:00:00:00:00", "1"),
            ("eth0", "52:54:00:ab:00:01", "2"),
        ] {
            let directory = sys.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("address"), format!("{mac}\n")).unwrap();
            fs::write(directory.join("ifindex"), format!("{index}\n")).unwrap();
        }
        assert_eq!(look(sys.path(), "52:54:00:AB:00:01"), Some((2, "eth0".into())));
        assert_eq!(look(sys.path(), "52:54:00:ab:00:02"), None);
    }
}

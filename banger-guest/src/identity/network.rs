//! The interface is configured before the image's own network services start; this tells each
//! of them that may be there to leave it as it is. All of it lies in `/run`.

use std::io;
use std::path::Path;

use banger_model::guest::{GuestNetwork, Identity};

use super::files;

pub(super) fn apply(root: &Path, identity: &Identity) -> io::Result<()> {
    let Some(network) = &identity.network else {
        return Ok(());
    };
    // Where the image has none of these services, files for them would only be odd.
    if files::is_directory(root, "etc/systemd") || files::is_directory(root, "usr/lib/systemd") {
        let text = networkd(network);
        files::write(
            root,
            "run/systemd/network/05-banger.network",
            0o644,
            text.as_bytes(),
        )?;
        let text = resolved(network);
        files::write(
            root,
            "run/systemd/resolved.conf.d/05-banger.conf",
            0o644,
            text.as_bytes(),
        )?;
    }
    if files::is_directory(root, "etc/NetworkManager") {
        let text = network_manager(network);
        files::write(
            root,
            "run/NetworkManager/conf.d/05-banger.conf",
            0o644,
            text.as_bytes(),
        )?;
    }
    if files::is_directory(root, "etc/network") {
        // ifupdown leaves alone what it believes to have configured itself.
        let name = interface_name(&network.mac).unwrap_or_else(|| "eth0".to_owned());
        let text = format!("lo=lo\n{name}={name}\n");
        files::write(root, "run/network/ifstate", 0o644, text.as_bytes())?;
    }
    Ok(())
}

/// systemd.network(5), with what the kernel has already.
fn networkd(network: &GuestNetwork) -> String {
    let GuestNetwork {
        mac, address, prefix, ..
    } = network;
    let mut text = format!(
        "# Written by banger at boot.\n[Match]\nMACAddress={mac}\n\n\
         [Link]\nRequiredForOnline=no\n\n\
         [Network]\nAddress={address}/{prefix}\nKeepConfiguration=yes\nDHCP=no\n\
         IPv6AcceptRA=no\nLinkLocalAddressing=no\n"
    );
    if let Some(gateway) = network.gateway {
        text.push_str(&format!("Gateway={gateway}\n"));
    }
    for server in &network.dns {
        text.push_str(&format!("DNS={server}\n"));
    }
    text
}

/// resolved.conf(5): for an image with resolved and another network service than networkd.
fn resolved(network: &GuestNetwork) -> String {
    let servers: Vec<_> = network.dns.iter().map(ToString::to_string).collect();
    format!(
        "# Written by banger at boot.\n[Resolve]\nDNS={}\n",
        servers.join(" ")
    )
}

/// NetworkManager.conf(5), "Device List Format".
fn network_manager(network: &GuestNetwork) -> String {
    let mac = &network.mac;
    format!("# Written by banger at boot.\n[keyfile]\nunmanaged-devices=mac:{mac}\n")
}

fn interface_name(mac: &str) -> Option<String> {
    std::fs::read_dir("/sys/class/net").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let found = std::fs::read_to_string(entry.path().join("address")).ok()?;
        let same = found.trim_end().eq_ignore_ascii_case(mac);
        same.then(|| entry.file_name().into_string().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::identity;
    use super::*;

    #[test]
    fn only_services_that_are_there_are_told() {
        let root = tempfile::tempdir().unwrap();
        apply(root.path(), &identity()).unwrap();
        assert!(!root.path().join("run").exists());
        fs::create_dir_all(root.path().join("etc/network")).unwrap();
        fs::create_dir_all(root.path().join("etc/systemd")).unwrap();
        apply(root.path(), &identity()).unwrap();
        let state = fs::read_to_string(root.path().join("run/network/ifstate")).unwrap();
        assert_eq!(state, "lo=lo\neth0=eth0\n");
        let file = root.path().join("run/systemd/network/05-banger.network");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains("Address=10.0.2.15/24\n"), "{text}");
        assert!(text.contains("KeepConfiguration=yes\n"));
        assert!(!root.path().join("run/NetworkManager").exists());
    }
}

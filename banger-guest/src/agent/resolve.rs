//! Names of hosts for forwarding. The image's C library is not asked (this program is static),
//! so it is addresses, `localhost`, and what `/etc/hosts` says.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// The address of `host`.
pub(super) fn resolve(host: &str) -> Option<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Some(address);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let hosts = fs::read("/etc/hosts").unwrap_or_default();
    find(&String::from_utf8_lossy(&hosts), host)
}

fn find(hosts: &str, host: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let entry = line.split('#').next()?;
        let mut words = entry.split_whitespace();
        let address = words.next()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then(|| address.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_list() {
        let hosts = "127.0.1.1\tbeta # db\n10.0.0.7 db.internal DB\nbad name\n";
        assert_eq!(find(hosts, "db"), Some("10.0.0.7".parse().unwrap()));
        assert_eq!(find(hosts, "name"), None);
        assert_eq!(resolve("[::1]"), Some("::1".parse().unwrap()));
        assert_eq!(resolve("LOCALHOST"), Some(Ipv4Addr::LOCALHOST.into()));
    }
}

//! Kernel settings below `/proc/sys`, of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::NetError;

/// A setting with the value that it has to have.
pub(crate) type Setting = (&'static str, &'static str);

/// What makes the guests' namespace a strict router of IPv4, and of nothing else. `all` and
/// `default` are set before its interfaces exist, which take theirs from `default`: a new
/// namespace starts with the host's values, whatever those are.
pub(crate) const GUESTS: &[Setting] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/icmp_echo_ignore_broadcasts", "1"),
    // A guest is told every 20 ms, not only once a second, that it may not go somewhere. The kernel
    // keeps ticks: this is a whole number of them at every common rate.
    ("net/ipv4/icmp_ratelimit", "20"),
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    // Each bridge answers for its own address alone.
    ("net/ipv4/conf/all/arp_ignore", "2"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/ipv4/conf/all/proxy_arp", "0"),
    ("net/ipv4/conf/default/proxy_arp", "0"),
    ("net/ipv4/conf/all/accept_local", "0"),
    ("net/ipv4/conf/default/accept_local", "0"),
    ("net/ipv4/conf/all/route_localnet", "0"),
    ("net/ipv4/conf/default/route_localnet", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/default/accept_source_route", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    // Frames are filtered as frames and packets as packets, whatever br_netfilter would do.
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
];

/// The host's end of the link. They go with it.
pub(crate) const HOST_LINK: &[Setting] = &[
    ("net/ipv6/conf/banger0/disable_ipv6", "1"),
    ("net/ipv4/conf/banger0/rp_filter", "1"),
    ("net/ipv4/conf/banger0/accept_local", "0"),
    ("net/ipv4/conf/banger0/route_localnet", "0"),
    ("net/ipv4/conf/banger0/proxy_arp", "0"),
    ("net/ipv4/conf/banger0/accept_redirects", "0"),
    ("net/ipv4/conf/banger0/send_redirects", "0"),
];

/// Makes settings what they have to be, and says whether one was not. What this kernel does not
/// have (IPv6, br_netfilter) is left out.
pub(crate) fn ensure(settings: &[Setting]) -> Result<bool, NetError> {
    let mut changed = false;
    for (name, value) in settings {
        if read(name)?.is_some_and(|current| current != *value) {
            write(name, value)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Whether IPv4 packets that come in at an interface are forwarded; `None` without it.
/// The name `all` stands for the setting of the whole host.
pub(crate) fn forwarding(interface: &str) -> Result<Option<bool>, NetError> {
    Ok(read(&forwarding_of(interface))?.map(|value| value != "0"))
}

pub(crate) fn set_forwarding(interface: &str, on: bool) -> Result<(), NetError> {
    write(&forwarding_of(interface), if on { "1" } else { "0" })
}

/// An interface's name may contain a dot but neither a slash nor be `.` or `..` (the kernel's
/// dev_valid_name), so it is always one component.
fn forwarding_of(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/forwarding")
}

fn read(name: &str) -> Result<Option<String>, NetError> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(NetError::file(path)(e)),
    }
}

fn write(name: &str, value: &str) -> Result<(), NetError> {
    let path = path(name);
    fs::write(&path, value).map_err(NetError::file(path))
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

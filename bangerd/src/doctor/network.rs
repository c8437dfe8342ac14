//! Real packets. Nothing is opened for them and no privilege is needed: each is one that this
//! user may send anyway, or that a guest of his sends for him.

use std::env;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_model::slot::{GuestBridge, HOST_ADDRESS, HOST_LINK, Slot};
use banger_model::{Config, Dirs};
use rustix::net::sockopt::set_ip_ttl;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::firewall;
use super::known::Guest;
use super::report::Report;
use crate::core::error::chain;
use crate::guest::{Agent, ClientKey, Endpoint};

/// How long a name or a connection over the Internet may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long the way to the guests' network and back may take: it is one hop. Less than the three
/// seconds after which a dead link says that nobody is there (ARP).
const LINK_LIMIT: Duration = Duration::from_secs(2);
/// How long a guest's agent may take for its greeting, an emulated one too.
const AGENT_LIMIT: Duration = Duration::from_secs(10);
/// And for a connection that it makes.
const GUEST_LIMIT: Duration = Duration::from_secs(20);
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// Whom the packets are for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    /// Whether it is a proxy on the way to the mirror.
    is_proxy: bool,
}

/// Sends them: to the mirror, to the guests' network where there should be one, and from a guest
/// where one runs.
pub(super) async fn check(
    report: &mut Report,
    dirs: &Dirs,
    config: &Config,
    guests: &[Guest],
    has_network: bool,
) {
    let mirror = config
        .debian_mirror
        .as_ref()
        .map_or(DEFAULT_MIRROR, |mirror| mirror.as_str());
    let Some(target) = target(mirror, |key| env::var(key).ok()) else {
        return report.warning(
            "network-mirror",
            format!("{mirror} names no host"),
            "Correct debian_mirror, or http_proxy.",
        );
    };
    let reached = mirror_of(report, &target).await;
    if has_network {
        link(report).await;
    }
    let running = |guest: &&Guest| guest.agent.is_some();
    match guests.iter().filter(running).find(|guest| guest.is_public) {
        Some(guest) => from_guest(report, dirs, config, guest, &target, reached).await,
        None if guests.iter().any(|guest| guest.agent.is_some()) => {
            report.info("network-guest", "Only VMs without a network run: none can try");
        }
        None => report.info(
            "network-guest",
            "No VM runs that could send a packet; with one that runs, this check is made from within it",
        ),
    }
}

/// The host's own way to where kernels and packages come from.
async fn mirror_of(report: &mut Report, target: &Target) -> bool {
    const NAME: &str = "network-mirror";
    let Target { host, port, is_proxy } = target;
    let what = if *is_proxy { "The proxy" } else { "The mirror" };
    let began = Instant::now();
    let error = match timeout(LIMIT, connect(host, *port)).await {
        Ok(Ok(address)) => {
            let took = began.elapsed().as_millis();
            report.ok(NAME, format!("{what} {host}:{port} answers ({took} ms)"));
            report.detail(format!("A TCP connection was made with {address}."));
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!(
            "nothing comes back within {} seconds: a firewall may drop it",
            LIMIT.as_secs()
        ),
    };
    report.warning(
        NAME,
        format!("{what} {host}:{port} is not reached: {error}"),
        "Images are not built and kernels not fetched meanwhile; what is here runs. Set http_proxy where a proxy is needed, or debian_mirror in config.toml.",
    );
    false
}

async fn connect(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One packet to the guests' network, and one back. A connection to a guest's address that may
/// go no further than its first router is given back by that router, which is the network's
/// namespace: no guest has to be there, none sees it, and everybody may send it.
async fn link(report: &mut Report) {
    const NAME: &str = "network-link";
    let address = Slot::all()
        .next_back()
        .map_or(Ipv4Addr::UNSPECIFIED, |slot| slot.address(GuestBridge::Public));
    let began = Instant::now();
    match timeout(LINK_LIMIT, one_hop(address)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::HostUnreachable => {
            let took = began.elapsed().as_micros();
            report.ok(
                NAME,
                format!("A packet went to the guests' network and its answer came back ({took} µs)"),
            );
        }
        Ok(Err(error)) if is_no_link(&error) => report.failure(
            NAME,
            format!("There is no route to the guests' network: {HOST_LINK} is not there or down"),
            "sudo systemctl restart banger-network",
        ),
        Ok(Err(error)) => report.failure(
            NAME,
            format!("A packet to the guests' network was refused: {error}. Another firewall does that"),
            &firewall::way_out_of_loss(),
        ),
        // Nobody has that address, unless somebody else has the whole network.
        Ok(Ok(())) => report.failure(
            NAME,
            format!("{address} answers from elsewhere than {HOST_LINK}: another network has 10.119.0.0/19"),
            "See `ip route get` of that address; docs/networking.md has the addresses that banger uses.",
        ),
        Err(_) => report.failure(
            NAME,
            format!(
                "A packet to the guests' network gets no answer: a firewall drops what goes to {HOST_LINK} or comes from it"
            ),
            &firewall::way_out_of_loss(),
        ),
    }
}

fn is_no_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable
    )
}

/// Ends with what the first router says.
async fn one_hop(address: Ipv4Addr) -> io::Result<()> {
    /// Discard, which guests do not serve.
    const PORT: u16 = 9;
    let socket = TcpSocket::new_v4()?;
    set_ip_ttl(&socket, 1)?;
    // By this link or not at all: the next router of any other way would answer just the same.
    socket.bind(SocketAddr::new(HOST_ADDRESS.into(), 0))?;
    socket
        .connect(SocketAddr::new(address.into(), PORT))
        .await
        .map(drop)
}

/// A connection of a guest's to the same place, made by its agent for the owner.
async fn from_guest(
    report: &mut Report,
    dirs: &Dirs,
    config: &Config,
    guest: &Guest,
    target: &Target,
    reached_by_host: bool,
) {
    const NAME: &str = "network-guest";
    let name = &guest.name;
    if target.is_proxy {
        return report.info(
            NAME,
            format!("Not tried in {name}: the host itself needs a proxy"),
        );
    }
    let agent = match agent(dirs, config, guest) {
        Ok(agent) => agent,
        Err(why) => {
            return report.warning(
                NAME,
                format!("{name} cannot be asked: {why}"),
                "banger vm restart",
            );
        }
    };
    let way_out = match guest.is_of_system_mode() {
        true => firewall::way_out_of_loss(),
        false => format!("See `banger vm logs {name}`; `banger vm restart {name}`."),
    };
    let unreached = match timeout(AGENT_LIMIT, agent.warm()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!(
            "nothing comes back within {} seconds",
            AGENT_LIMIT.as_secs()
        )),
    };
    if let Some(why) = unreached {
        let message = format!("The agent of {name} is not reached: {why}");
        return report.failure(NAME, message, &way_out);
    }
    let Target { host, port, .. } = target;
    let began = Instant::now();
    let why = match timeout(GUEST_LIMIT, agent.reaches(host, *port)).await {
        Ok(Ok(true)) => {
            let took = began.elapsed().as_millis();
            return report.ok(NAME, format!("{name} reaches {host}:{port} ({took} ms)"));
        }
        Ok(Ok(false)) => "the connection fails".to_owned(),
        Ok(Err(error)) => chain(&error),
        Err(_) => "nothing comes back".to_owned(),
    };
    let message = format!("{name} does not reach {host}:{port}: {why}");
    if !reached_by_host {
        report.info(NAME, message);
        return report.detail("Neither does the host.");
    }
    report.failure(NAME, message, &way_out);
    report.detail(match guest.is_of_system_mode() {
        true => "The host does: another firewall keeps guests in, or names are not answered.",
        false => "The host does.",
    });
}

fn agent(dirs: &Dirs, config: &Config, guest: &Guest) -> Result<Arc<Agent>, String> {
    let address = guest.agent.ok_or("it does not run")?;
    let home = env::home_dir().unwrap_or_default();
    let key = config
        .ssh_key_path
        .as_ref()
        .map_or_else(|| dirs.ssh_key(), |path| path.resolve(&home));
    // One that is named is never made.
    let key = ClientKey::load_or_make(Some(&key), &dirs.state).map_err(|e| chain(&e))?;
    let endpoint = Endpoint {
        address,
        host_key: guest.host_key.clone(),
    };
    Agent::new(&endpoint, key.private().clone()).map_err(|e| chain(&e))
}

/// The mirror's host, or that of the proxy by which apt gets there.
fn target(mirror: &str, env: impl Fn(&str) -> Option<String>) -> Option<Target> {
    let scheme = mirror.split_once("://")?.0;
    let keys: &[&str] = match scheme {
        "https" => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        // curl and apt know no HTTP_PROXY.
        _ => &["http_proxy", "all_proxy", "ALL_PROXY"],
    };
    let proxy = keys
        .iter()
        .find_map(|key| env(key).filter(|proxy| !proxy.is_empty()));
    let is_proxy = proxy.is_some();
    let (host, port) = place(proxy.as_deref().unwrap_or(mirror))?;
    Some(Target { host, port, is_proxy })
}

/// Host and port of an address; a scheme may be left out, as in proxies.
fn place(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let usual = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an address of IPv6 stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Whether a name means an address, as the host's own programs ask.
pub(super) async fn resolves_to(name: &str, address: IpAddr) -> Result<bool, String> {
    match timeout(LIMIT, lookup_host((name, 0))).await {
        Ok(Ok(mut found)) => Ok(found.any(|one| one.ip() == address)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn hosts_are_read_from_addresses() {
        let of = |url| place(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(of(DEFAULT_MIRROR).as_deref(), Some("deb.debian.org 80"));
        assert_eq!(of("https://u:p@a.example/x:1").as_deref(), Some("a.example 443"));
        assert_eq!(of("proxy:3128").as_deref(), Some("proxy 3128"));
        assert_eq!(of("http://[::1]:8080/").as_deref(), Some("::1 8080"));
        assert_eq!(of("http://[::1]").as_deref(), Some("::1 80"));
        assert_eq!((of("http:///x"), of("http://a:b")), (None, None));
    }

    #[test]
    fn a_proxy_is_asked_instead_of_the_mirror() {
        let with = |key: &'static str| {
            move |asked: &str| (asked == key).then(|| "http://proxy.example:8080".to_owned())
        };
        let found = target(DEFAULT_MIRROR, with("http_proxy")).unwrap();
        assert!(found.is_proxy && found.host == "proxy.example");
        let found = target(DEFAULT_MIRROR, with("https_proxy")).unwrap();
        assert!(!found.is_proxy && found.host == "deb.debian.org");
    }

    #[tokio::test]
    async fn who_answers_and_who_does_not_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut place = Target {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            is_proxy: false,
        };
        let mut report = Report::default();
        assert!(mirror_of(&mut report, &place).await);
        assert_eq!(report.worst(), Status::Ok);
        drop(listener);
        place.host = "localhost".to_owned();
        assert!(!mirror_of(&mut report, &place).await);
        assert_eq!(report.worst(), Status::Warning);
    }
}

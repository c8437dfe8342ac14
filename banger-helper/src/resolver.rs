//! systemd-resolved, as far as the helper needs it: see org.freedesktop.resolve1(5).

use std::time::Duration;

use banger_bus::ErrorKind;
use banger_bus::helper::HelperError;
use banger_model::GuestBridge;
use banger_model::slot::HOST_ADDRESS;
use futures_util::{Stream, StreamExt};
use rustix::net::AddressFamily;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, proxy};

const SERVICE: &str = "org.freedesktop.resolve1";
/// The domain of all VMs.
const DOMAIN: &str = "vm";
/// How long resolved may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// A server: family, address, port, and a name for its certificate.
type Server<'a> = (i32, &'a [u8], u16, &'a str);

// A host whose administrator has stopped resolved keeps it stopped.
#[proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1"
)]
trait Resolve {
    #[zbus(name = "SetLinkDNSEx", no_autostart)]
    fn set_link_dns(&self, index: i32, servers: &[Server<'_>]) -> zbus::Result<()>;
    #[zbus(no_autostart)]
    fn set_link_domains(&self, index: i32, domains: &[(&str, bool)]) -> zbus::Result<()>;
    #[zbus(no_autostart)]
    fn set_link_default_route(&self, index: i32, enable: bool) -> zbus::Result<()>;
    #[zbus(name = "SetLinkLLMNR", no_autostart)]
    fn set_link_llmnr(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkMulticastDNS", no_autostart)]
    fn set_link_multicast_dns(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSOverTLS", no_autostart)]
    fn set_link_dns_over_tls(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSSEC", no_autostart)]
    fn set_link_dnssec(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(no_autostart)]
    fn revert_link(&self, index: i32) -> zbus::Result<()>;
}

/// Why resolved did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolverError {
    #[error(
        "No systemd-resolved runs on this host, so it does not ask for names of VMs; for other resolvers see docs/dns-routing.md"
    )]
    Absent,
    #[error("Another program sets the name servers of banger0")]
    Managed,
    #[error("systemd-resolved does not answer")]
    Silent,
    #[error("systemd-resolved refused")]
    Refused(#[source] zbus::Error),
}

/// The host's resolver.
#[derive(Clone)]
pub(crate) struct Resolver {
    bus: Connection,
    resolve: ResolveProxy<'static>,
}

impl Resolver {
    /// Talks to nobody yet.
    ///
    /// # Errors
    /// When the bus is gone.
    pub(crate) async fn new(bus: &Connection) -> zbus::Result<Self> {
        let resolve = ResolveProxy::builder(bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self {
            bus: bus.clone(),
            resolve,
        })
    }

    /// Has names of VMs, and names for their addresses, asked at a port of the host's address;
    /// nothing else is. `index` is the link's. A second time it replaces the first.
    ///
    /// # Errors
    /// Every [`ResolverError`].
    pub(crate) async fn route(&self, index: u32, port: u16) -> Result<(), ResolverError> {
        let index = link(index)?;
        let zones = reverse_zones();
        let mut domains = vec![(DOMAIN, true)];
        domains.extend(zones.iter().map(|zone| (&**zone, true)));
        let address = HOST_ADDRESS.octets();
        let family = i32::from(AddressFamily::INET.as_raw());
        limited(async {
            let resolve = &self.resolve;
            // First what keeps the host's own settings from being applied to our server: its
            // zone is signed by nobody, and it speaks nothing but DNS.
            resolve.set_link_dnssec(index, "no").await?;
            resolve.set_link_dns_over_tls(index, "no").await?;
            resolve.set_link_llmnr(index, "no").await?;
            resolve.set_link_multicast_dns(index, "no").await?;
            resolve.set_link_default_route(index, false).await?;
            resolve.set_link_domains(index, &domains).await?;
            resolve.set_link_dns(index, &[(family, &address, port, "")]).await
        })
        .await
    }

    /// Takes everything back that was set for the link.
    ///
    /// # Errors
    /// Every [`ResolverError`]; without resolved there is nothing to take back.
    pub(crate) async fn revert(&self, index: u32) -> Result<(), ResolverError> {
        let index = link(index)?;
        match limited(self.resolve.revert_link(index)).await {
            Err(ResolverError::Absent) => Ok(()),
            // It does not know the link, which is gone.
            Err(ResolverError::Refused(error)) if is_error(&error, "NoSuchLink") => Ok(()),
            other => other,
        }
    }

    /// Yields each time that a resolved has started, which knows nothing then.
    ///
    /// # Errors
    /// When the bus refuses.
    pub(crate) async fn starts(&self) -> zbus::Result<impl Stream<Item = ()> + Send + use<>> {
        let bus = DBusProxy::new(&self.bus).await?;
        let changes = bus.receive_name_owner_changed_with_args(&[(0, SERVICE)]).await?;
        Ok(changes.filter_map(|change| async move {
            let change = change.args().ok()?;
            change.new_owner().is_some().then_some(())
        }))
    }
}

/// `in-addr.arpa` names of 256 addresses each: all that a guest can have.
fn reverse_zones() -> Vec<String> {
    let networks = GuestBridge::ALL.map(GuestBridge::network).into_iter();
    let parts = networks.flat_map(|(network, prefix)| {
        let [a, b, first, _] = network.octets();
        let count = 1_u8 << 24_u8.saturating_sub(prefix);
        (first..first + count).map(move |c| format!("{c}.{b}.{a}.in-addr.arpa"))
    });
    parts.collect()
}

fn link(index: u32) -> Result<i32, ResolverError> {
    i32::try_from(index).map_err(|_| ResolverError::Refused(zbus::Error::Unsupported))
}

async fn limited<T>(asking: impl Future<Output = zbus::Result<T>>) -> Result<T, ResolverError> {
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(answer) => answer.map_err(refusal),
        Err(_) => Err(ResolverError::Silent),
    }
}

fn refusal(error: zbus::Error) -> ResolverError {
    match &error {
        zbus::Error::FDO(known) => match **known {
            zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_) => {
                ResolverError::Absent
            }
            _ => ResolverError::Refused(error),
        },
        _ if is_error(&error, "LinkBusy") => ResolverError::Managed,
        _ => ResolverError::Refused(error),
    }
}

fn is_error(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, ..)
        if full.strip_prefix("org.freedesktop.resolve1.") == Some(name))
}

impl From<ResolverError> for HelperError {
    fn from(error: ResolverError) -> Self {
        let kind = match error {
            ResolverError::Absent => ErrorKind::MissingTool,
            _ => ErrorKind::Failed,
        };
        Self::new(kind, crate::journal::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_has_a_name_for_its_address() {
        let zones = reverse_zones();
        assert_eq!(zones.len(), 8);
        for slot in banger_model::Slot::all() {
            for bridge in GuestBridge::ALL {
                let [a, b, c, _] = slot.address(bridge).octets();
                assert!(zones.contains(&format!("{c}.{b}.{a}.in-addr.arpa")));
            }
        }
    }
}

//! The daemon on the session bus, where there is one.

use std::time::Duration;

use banger_bus::SERVICE;
use zbus::names::{BusName, WellKnownName};
use zbus::{Connection, fdo};

/// How long the bus may take to greet us; one that hangs counts as none. The daemon waits as long.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection to the session bus if the daemon is there already.
pub(super) async fn running() -> Option<Connection> {
    let (connection, bus) = connect().await?;
    let owned = bus.name_has_owner(BusName::from(service())).await.ok()?;
    owned.then_some(connection)
}

/// A connection to the session bus if the daemon is there, or could be started by it. That it
/// could not is no failure: the caller starts a daemon itself and hears why it ends.
pub(super) async fn activate() -> Option<Connection> {
    let (connection, bus) = connect().await?;
    let names = bus.list_activatable_names().await.ok()?;
    if !names.iter().any(|name| name.as_str() == SERVICE) {
        return None;
    }
    bus.start_service_by_name(service(), 0).await.ok()?;
    Some(connection)
}

async fn connect() -> Option<(Connection, fdo::DBusProxy<'static>)> {
    let connecting = async {
        let connection = Connection::session().await.ok()?;
        let bus = fdo::DBusProxy::new(&connection).await.ok()?;
        Some((connection, bus))
    };
    tokio::time::timeout(ANSWER, connecting).await.ok().flatten()
}

fn service() -> WellKnownName<'static> {
    WellKnownName::from_static_str_unchecked(SERVICE)
}

//! Whether the helper would launch a VM for this owner now, found out without any effect.

use std::collections::HashMap;
use std::time::Duration;

use banger_bus::helper::{ACTION_PREFIX, HELPER_SERVICE};
use zbus::names::BusName;
use zbus::{Connection, Variant, fdo};

use super::{Failure, SystemBus};

/// How long bus and polkit may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// The action that a VM needs first.
const ACTION: &str = "acquire-slot";

/// What the bus asks systemd to start, an alias of the helper's unit where it is enabled.
const BUS_UNIT: &str = "dbus-org.banger.Helper.service";

/// What was found.
pub(crate) type Standing = Result<(), Failure>;

impl SystemBus {
    /// Whether the helper runs, or starts when it is called: where system mode is off, the bus
    /// knows its name and systemd does not know the unit.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub(super) async fn has_helper(&self) -> zbus::Result<bool> {
        let bus = fdo::DBusProxy::new(&self.connection().await?).await?;
        let runs = bus.name_has_owner(BusName::try_from(HELPER_SERVICE)?).await?;
        if runs {
            return Ok(true);
        }
        let activatable = bus.list_activatable_names().await?;
        Ok(activatable.iter().any(|name| **name == HELPER_SERVICE) && self.is_enabled().await?)
    }

    /// Whether systemd would start the helper for the bus. A bus without systemd starts it by itself.
    async fn is_enabled(&self) -> zbus::Result<bool> {
        let connection = self.connection().await?;
        let asked = connection.call_method(
            Some("org.freedesktop.systemd1"),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "GetUnitFileState",
            &BUS_UNIT,
        );
        Ok(match asked.await {
            Err(zbus::Error::FDO(error)) => !matches!(*error, fdo::Error::FileNotFound(_)),
            Err(zbus::Error::MethodError(name, ..)) => name != "org.freedesktop.DBus.Error.FileNotFound",
            _ => true,
        })
    }

    /// Asks bus and polkit; nobody is asked for a password, and the helper is not started.
    pub(super) async fn standing(&self) -> Standing {
        match tokio::time::timeout(LIMIT, self.ask()).await {
            Ok(standing) => standing,
            Err(_) => Err(Failure::Unreachable(
                "the system bus or polkit gives no answer in time".to_owned(),
            )),
        }
    }

    async fn ask(&self) -> Standing {
        if !self.has_helper().await.unwrap_or(false) {
            return Err(Failure::NotInstalled);
        }
        let asked = async { may(&self.connection().await?).await };
        match asked.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::NotAuthorized(
                "polkit would ask for a password".to_owned(),
            )),
            Err(error) => Err(Failure::Unreachable(format!("polkit does not answer: {error}"))),
        }
    }
}

/// Anybody may ask polkit about himself.
async fn may(bus: &Connection) -> zbus::Result<bool> {
    let name = bus.unique_name().map(ToString::to_string).unwrap_or_default();
    let subject = ("system-bus-name", HashMap::from([("name", Variant::from(name))]));
    let details: HashMap<&str, &str> = HashMap::new();
    let reply = bus
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            "CheckAuthorization",
            &(subject, format!("{ACTION_PREFIX}{ACTION}"), details, 0u32, ""),
        )
        .await?;
    let (authorized, _challenge, _details): (bool, bool, HashMap<String, String>) =
        reply.body().deserialize()?;
    Ok(authorized)
}

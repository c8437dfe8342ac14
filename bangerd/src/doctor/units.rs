//! What systemd says of a unit. Everybody may ask that, of the system's units too.

use std::collections::HashMap;

use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{Connection, OwnedObjectPath, OwnedVariant};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A unit that is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// `active`, `failed` …
    pub active: String,
    /// Why it failed, `exit-code` for one; `success` before.
    pub result: String,
    /// What it says of itself by sd_notify(3).
    pub status: String,
}

impl Unit {
    pub(super) fn has_failed(&self) -> bool {
        self.active == "failed"
    }
}

/// A service; `None` when it is not loaded: it does not run and has not failed.
///
/// # Errors
/// When systemd does not answer.
pub(super) async fn service(bus: &Connection, name: &str) -> zbus::Result<Option<Unit>> {
    let found = bus
        .call_method(Some(SYSTEMD), PATH, Some(MANAGER), "GetUnit", &name)
        .await;
    let path: OwnedObjectPath = match found {
        Ok(reply) => reply.body().deserialize()?,
        Err(zbus::Error::MethodError(..) | zbus::Error::FDO(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let proxy = PropertiesProxy::new(bus, SYSTEMD, &path).await?;
    let unit = proxy
        .get_all(InterfaceName::from_static_str_unchecked(
            "org.freedesktop.systemd1.Unit",
        ))
        .await?;
    let service = proxy
        .get_all(InterfaceName::from_static_str_unchecked(
            "org.freedesktop.systemd1.Service",
        ))
        .await?;
    Ok(Some(Unit {
        active: text(&unit, "ActiveState"),
        result: text(&service, "Result"),
        status: text(&service, "StatusText"),
    }))
}

/// Forgets that a service has failed, and starts it anew.
///
/// # Errors
/// When systemd refuses.
pub(super) async fn restart(bus: &Connection, name: &str) -> zbus::Result<()> {
    bus.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "ResetFailedUnit", &name)
        .await?;
    let start = (name, "replace");
    bus.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "RestartUnit", &start)
        .await
        .map(drop)
}

fn text(properties: &HashMap<String, OwnedVariant>, key: &str) -> String {
    let value = properties.get(key).and_then(|value| value.try_clone().ok());
    value
        .and_then(|value| String::try_from(value).ok())
        .unwrap_or_default()
}

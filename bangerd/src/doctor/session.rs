//! The user's session: its bus and its systemd.

use std::time::Duration;

use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use super::report::Report;

/// How long the bus may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
const SYSTEMD: &str = "org.freedesktop.systemd1";

pub(super) async fn check(report: &mut Report) {
    let Some(address) = crate::serve::session_bus_address() else {
        report.info("session-bus", "None: clients use the daemon's private socket");
        report.info(
            "systemd-user",
            "None: a VMM is a process of its own, without a memory limit",
        );
        return;
    };
    let asked = tokio::time::timeout(LIMIT, ask(&address)).await;
    match asked {
        Ok(Ok(systemd)) => {
            report.ok("session-bus", "Answers");
            report.detail(address);
            if systemd {
                report.ok("systemd-user", "Answers: each VMM gets a scope of its own");
            } else {
                report.info(
                    "systemd-user",
                    "None: a VMM is a process of its own, without a memory limit",
                );
            }
        }
        Ok(Err(error)) => {
            report.warning(
                "session-bus",
                format!("Does not answer: {error}"),
                "Unset DBUS_SESSION_BUS_ADDRESS where there is no bus; the private socket is used meanwhile.",
            );
            report.detail(address);
        }
        Err(_) => {
            report.warning(
                "session-bus",
                "Does not answer in time",
                "Unset DBUS_SESSION_BUS_ADDRESS where there is no bus; the private socket is used meanwhile.",
            );
            report.detail(address);
        }
    }
}

/// Whether systemd is on the bus. It is not started by the question.
async fn ask(address: &str) -> zbus::Result<bool> {
    let connection = Builder::address(address).build().await?;
    let bus = DBusProxy::new(&connection).await?;
    Ok(bus.name_has_owner(BusName::try_from(SYSTEMD)?).await?)
}

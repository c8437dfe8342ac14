//! The user's session: its bus and its systemd.

use std::time::Duration;

use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use super::report::{Report, Status};
use super::units::{self, Unit};

/// How long the bus may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a unit may take to be started again.
const RESTART_LIMIT: Duration = Duration::from_secs(30);
const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The daemon's, where it was installed as a service.
const UNIT: &str = "bangerd.service";
const NO_SYSTEMD: &str = "None: a VMM is a process of its own, without a memory limit";
const NO_BUS: &str =
    "Unset DBUS_SESSION_BUS_ADDRESS where there is no bus; the private socket is used meanwhile.";

pub(super) async fn check(report: &mut Report) {
    let Some(address) = crate::serve::session_bus_address() else {
        report.info("session-bus", "None: clients use the daemon's private socket");
        report.info("systemd-user", NO_SYSTEMD);
        return;
    };
    match tokio::time::timeout(LIMIT, ask(&address)).await {
        Ok(Ok((bus, unit))) => {
            report.ok("session-bus", "Answers");
            report.detail(address);
            match unit {
                Systemd::None => report.info("systemd-user", NO_SYSTEMD),
                Systemd::Answers(unit) => {
                    report.ok("systemd-user", "Answers: each VMM gets a scope of its own");
                    service(report, &bus, unit).await;
                }
            }
        }
        Ok(Err(error)) => {
            report.warning("session-bus", format!("Does not answer: {error}"), NO_BUS);
            report.detail(address);
        }
        Err(_) => {
            report.warning("session-bus", "Does not answer in time", NO_BUS);
            report.detail(address);
        }
    }
}

enum Systemd {
    None,
    /// With the daemon's unit, where it is loaded.
    Answers(Option<Unit>),
}

/// systemd is not started by the question.
async fn ask(address: &str) -> zbus::Result<(Connection, Systemd)> {
    let connection = Builder::address(address).build().await?;
    let bus = DBusProxy::new(&connection).await?;
    let systemd = if bus.name_has_owner(BusName::try_from(SYSTEMD)?).await? {
        Systemd::Answers(units::service(&connection, UNIT).await?)
    } else {
        Systemd::None
    };
    Ok((connection, systemd))
}

async fn service(report: &mut Report, bus: &Connection, unit: Option<Unit>) {
    const NAME: &str = "systemd-user-unit";
    let Some(unit) = unit else {
        return report.info(
            NAME,
            format!("{UNIT} is not loaded: the daemon starts when it is needed"),
        );
    };
    if !unit.has_failed() {
        return report.ok(NAME, format!("{UNIT} is {}", unit.active));
    }
    let outcome = if report.fixes() {
        let restarted = tokio::time::timeout(RESTART_LIMIT, units::restart(bus, UNIT)).await;
        Some(match restarted {
            Ok(Ok(())) => Ok(format!("Had systemd start {UNIT} again")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("systemd gives no answer in time".to_owned()),
        })
    } else {
        None
    };
    report.repaired(
        NAME,
        Status::Failure,
        format!("{UNIT} has failed ({})", unit.result),
        &format!("See `journalctl --user -u {UNIT}`, then `systemctl --user restart {UNIT}`."),
        outcome,
    );
}

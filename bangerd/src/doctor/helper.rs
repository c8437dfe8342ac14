//! System mode: the buses and polkit behind it, whether its helper is there, answers, and lets
//! this owner, and whether another firewall stands in its way.

use std::time::Duration;

use banger_model::config::ModeChoice;
use banger_model::slot::NETWORK_UNIT;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use super::firewall;
use super::report::{Report, Status};
use super::units::{self, Unit};
use crate::helper::{Failure, Helper, SystemBus};

/// How long systemd may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
const HELPER_UNIT: &str = "banger-helper.service";
const POLKIT: &str = "org.freedesktop.PolicyKit1";
const RESTART: &str = "sudo banger system restart";

/// What system mode is to this owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SystemMode {
    /// Whether VMs are started in it.
    pub is_used: bool,
    /// Whether its network should be there.
    pub has_network: bool,
}

/// Looks at all of it; `mode` is what the configuration says.
pub(super) async fn check(report: &mut Report, mode: ModeChoice) -> SystemMode {
    let wanted = mode == ModeChoice::System;
    let helper = Helper::new(SystemBus::usual());
    let bus = match helper.connection().await {
        Ok(bus) => {
            report.ok("system-bus", "Answers");
            bus
        }
        Err(error) => {
            let message = format!("None: there is no system mode here ({error})");
            let status = if wanted { Status::Failure } else { Status::Info };
            let hint = "Start dbus-daemon or dbus-broker, or set mode = \"user\" in config.toml.";
            report.add("system-bus", status, message, if wanted { hint } else { "" });
            return SystemMode::default();
        }
    };
    let standing = helper.standing().await;
    if let Err(Failure::NotInstalled) = &standing {
        let status = if wanted { Status::Failure } else { Status::Info };
        let message = "Not installed: VMs are launched by this daemon (user mode)";
        report.add("helper", status, message, Failure::NotInstalled.way_out());
        return SystemMode::default();
    }
    polkit(report, &bus, wanted, &standing).await;
    match &standing {
        // Said already; without polkit the helper refuses everybody.
        Err(_) => {}
        Ok(()) if mode == ModeChoice::User => report.info(
            "helper",
            "Installed, and not used: the configuration says mode = \"user\"",
        ),
        Ok(()) => report.ok("helper", "Launches VMs as uids of their own (system mode)"),
    }
    let is_used = standing.is_ok() && mode != ModeChoice::User;
    let services = services(report, &bus).await;
    if let Some(network) = &services.network {
        firewall::named_by_the_network(report, network);
    }
    // The question would start both, which is a change, and one that has failed takes its time.
    if services.answer {
        own_checks(report, &helper, is_used).await;
    }
    SystemMode {
        is_used,
        has_network: is_used && !services.rests,
    }
}

/// What systemd says of the two units.
#[derive(Debug, Default)]
struct Services {
    /// The network's unit, where it is active.
    network: Option<Unit>,
    /// Whether the network was stopped, and nothing is wrong.
    rests: bool,
    /// Whether the helper can be asked without starting the network.
    answer: bool,
}

/// Whether polkit is there, and whether it lets this owner start a VM.
async fn polkit(report: &mut Report, bus: &Connection, wanted: bool, standing: &Result<(), Failure>) {
    let known = async {
        let bus = DBusProxy::new(bus).await?;
        let runs = bus.name_has_owner(BusName::try_from(POLKIT)?).await?;
        let names = bus.list_activatable_names().await?;
        zbus::Result::Ok(runs || names.iter().any(|name| **name == POLKIT))
    };
    let is_known = matches!(tokio::time::timeout(LIMIT, known).await, Ok(Ok(true)));
    match standing {
        Ok(()) => report.ok("polkit", "Lets you start VMs without a password"),
        Err(_) if !is_known => report.failure(
            "polkit",
            "Not there: nobody may use the helper",
            "apt install polkitd (Fedora: dnf install polkit)",
        ),
        Err(failure @ Failure::NotAuthorized(_)) => {
            let status = if wanted { Status::Failure } else { Status::Warning };
            report.add("polkit", status, failure.to_string(), failure.way_out());
        }
        Err(failure) => report.failure(
            "polkit",
            failure.to_string(),
            "See `systemctl status polkit`; `sudo systemctl restart polkit`.",
        ),
    }
}

async fn services(report: &mut Report, bus: &Connection) -> Services {
    let mut services = Services::default();
    let network = state(report, bus, "system-unit-network", NETWORK_UNIT).await;
    let helper = state(report, bus, "system-unit-helper", HELPER_UNIT).await;
    services.rests = matches!(network, State::Stopped);
    let known = |state: &State| matches!(state, State::Active(_) | State::Unknown);
    services.answer = known(&network) && !matches!(helper, State::Failed);
    if let State::Active(network) = network {
        services.network = Some(network);
    }
    services
}

enum State {
    Active(Unit),
    Stopped,
    Failed,
    /// A bus without systemd, as in a container: the helper is called nevertheless.
    Unknown,
}

async fn state(report: &mut Report, bus: &Connection, name: &str, unit: &str) -> State {
    match tokio::time::timeout(LIMIT, units::service(bus, unit)).await {
        Ok(Ok(Some(found))) if found.has_failed() => {
            let message = format!("{unit} has failed ({})", found.result);
            let hint = format!("See `systemctl status {unit}` and `journalctl -u {unit}`, then {RESTART}");
            report.failure(name, message, &hint);
            State::Failed
        }
        Ok(Ok(Some(found))) if found.active != "inactive" => {
            report.ok(name, format!("{unit} is {}", found.active));
            State::Active(found)
        }
        Ok(Ok(_)) => {
            report.info(
                name,
                format!("{unit} does not run: the next VM of system mode starts it"),
            );
            State::Stopped
        }
        Ok(Err(_)) | Err(_) => {
            report.info(name, format!("{unit}: systemd does not say"));
            State::Unknown
        }
    }
}

/// The helper's own checks. It is asked even where it refuses VMs: who may not start one may look.
async fn own_checks(report: &mut Report, helper: &Helper, is_used: bool) {
    match helper.status().await {
        Ok(checks) => {
            for (name, well, detail) in checks {
                let name = format!("system-{}", words(&name));
                if well {
                    report.ok(&name, detail);
                } else {
                    report.failure(&name, detail, RESTART);
                }
            }
        }
        // Said already.
        Err(Failure::NotAuthorized(_)) if !is_used => {}
        Err(failure) => {
            let status = if is_used { Status::Failure } else { Status::Warning };
            let hint = format!("See `systemctl status {HELPER_UNIT} {NETWORK_UNIT}`, then {RESTART}");
            report.add("system-checks", status, failure.to_string(), &hint);
        }
    }
}

/// A check's name as those of this report are.
fn words(name: &str) -> String {
    name.to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_form() {
        assert_eq!(words("bridge public"), "bridge-public");
        assert_eq!(words("Link to the host"), "link-to-the-host");
    }
}

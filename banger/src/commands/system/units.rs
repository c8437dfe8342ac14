//! What this machine's service manager and bus are asked for. Programs are run, as an
//! administrator would run them, so that what fails can be tried by hand.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::process::Command;
use tokio::time::timeout;
use zbus::fdo::{DBusProxy, PropertiesProxy};
use zbus::{Connection, OwnedObjectPath};

use banger_model::slot::NETWORK_UNIT;

use crate::error::{Error, Result};

/// The system bus starts it when it is called.
pub(super) const HELPER_UNIT: &str = "banger-helper.service";
pub(super) const UNITS: [&str; 2] = [NETWORK_UNIT, HELPER_UNIT];
/// The scopes of VMs.
pub(super) const VM_SCOPES: &str = "banger-vm-*.scope";
/// Their slices.
pub(super) const SLICES: &str = "banger*.slice";
const SYSTEMD: &str = "org.freedesktop.systemd1";
/// How long a service that was killed may take to be there again.
const REPLACE_LIMIT: Duration = Duration::from_secs(60);
pub(super) const GROUP: &str = "banger";

/// A unit as `systemctl show` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Unit {
    pub(super) name: String,
    /// `not-found` when there is no such unit.
    pub(super) load: String,
    pub(super) active: String,
    pub(super) sub: String,
    /// `enabled`, `static` …
    pub(super) file_state: String,
    /// 0 when it does not run.
    pub(super) main_pid: u32,
}

/// Runs a program that is to succeed, and returns what it printed.
///
/// # Errors
/// With its own words.
pub(super) async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let output = output(program, arguments)
        .await
        .map_err(|e| Error::io(format!("Cannot run `{}`", line()), e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: Vec<_> = words
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(Error::Refused(format!(
        "`{}` failed ({}): {}",
        line(),
        output.status,
        words.join("; ")
    )))
}

pub(super) async fn systemctl(arguments: &[&str]) -> Result<String> {
    run("systemctl", &[&["--no-ask-password"], arguments].concat()).await
}

async fn output(program: &str, arguments: &[&str]) -> io::Result<Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        // `su` leaves a PATH without the administrator's programs.
        .env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
}

/// The units of system mode.
pub(super) async fn units() -> Result<Vec<Unit>> {
    let properties = "--property=Id,LoadState,ActiveState,SubState,UnitFileState,MainPID";
    let mut words = vec!["show", properties];
    words.extend(UNITS);
    Ok(parse_units(&systemctl(&words).await?))
}

fn parse_units(text: &str) -> Vec<Unit> {
    let block = |block: &str| {
        let mut unit = Unit::default();
        for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
            let value = value.to_owned();
            match key {
                "Id" => unit.name = value,
                "LoadState" => unit.load = value,
                "ActiveState" => unit.active = value,
                "SubState" => unit.sub = value,
                "UnitFileState" => unit.file_state = value,
                "MainPID" => unit.main_pid = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        unit
    };
    text.split("\n\n")
        .map(block)
        .filter(|unit| !unit.name.is_empty())
        .collect()
}

/// The names of units that a pattern matches and that are active.
pub(super) async fn active(pattern: &str) -> Result<Vec<String>> {
    listed(&["--state=active", pattern]).await
}

/// The names of units that a pattern matches, in whatever state.
pub(super) async fn loaded(pattern: &str) -> Result<Vec<String>> {
    listed(&["--all", pattern]).await
}

async fn listed(words: &[&str]) -> Result<Vec<String>> {
    let words = [&["list-units", "--plain", "--no-legend", "--no-pager"], words].concat();
    let text = systemctl(&words).await?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// Kills the process of a service that systemd then starts anew, and waits for the new one.
///
/// # Errors
/// When it does not come up.
pub(super) async fn replace(unit: &str, old: u32) -> Result<()> {
    let bus = Connection::system().await?;
    let manager = async |method, body: &str| {
        let path = "/org/freedesktop/systemd1";
        let interface = Some("org.freedesktop.systemd1.Manager");
        match body {
            "" => bus.call_method(Some(SYSTEMD), path, interface, method, &()).await,
            name => {
                bus.call_method(Some(SYSTEMD), path, interface, method, &name)
                    .await
            }
        }
    };
    // Without it systemd tells nobody of changes.
    manager("Subscribe", "").await?;
    let path: OwnedObjectPath = manager("GetUnit", unit).await?.body().deserialize()?;
    let properties = PropertiesProxy::new(&bus, SYSTEMD, path).await?;
    let mut changes = properties.receive_properties_changed().await?;
    systemctl(&["kill", "--kill-whom=main", "--signal=SIGKILL", unit]).await?;
    let coming = async {
        while changes.next().await.is_some() {
            let now = units().await?;
            match now.iter().find(|now| now.name == unit) {
                Some(now) if now.active == "active" && now.main_pid != old => return Ok(()),
                Some(now) if now.active == "failed" => break,
                _ => {}
            }
        }
        Err(Error::Refused(format!("{unit} does not start again")))
    };
    timeout(REPLACE_LIMIT, coming)
        .await
        .unwrap_or_else(|_| Err(Error::Refused(format!("{unit} does not start again in time"))))
}

/// Has the service manager and the system bus read their files again.
pub(super) async fn reload() -> Result<()> {
    systemctl(&["daemon-reload"]).await?;
    // Cosmetic, and not on every machine.
    _ = run("journalctl", &["--update-catalog"]).await;
    let bus = Connection::system().await?;
    DBusProxy::new(&bus).await?.reload_config().await?;
    Ok(())
}

pub(super) async fn group_exists() -> Result<bool> {
    let found = output("getent", &["group", GROUP]).await;
    found
        .map(|output| output.status.success())
        .map_err(|e| Error::io("Cannot run `getent group`", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_understood() {
        let text = "Id=banger-network.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\
                    UnitFileState=enabled\nMainPID=12\n\nId=banger-helper.service\nLoadState=not-found\n\
                    ActiveState=inactive\nSubState=dead\nUnitFileState=\nMainPID=0\n";
        let units = parse_units(text);
        assert_eq!(units.len(), 2);
        assert_eq!((units[0].main_pid, units[0].file_state.as_str()), (12, "enabled"));
        assert_eq!((units[1].load.as_str(), units[1].main_pid), ("not-found", 0));
        assert_eq!(parse_units(""), Vec::new());
    }

    #[tokio::test]
    async fn a_program_s_own_words_are_told() {
        assert_eq!(run("echo", &["a"]).await.unwrap(), "a\n");
        let error = run("sh", &["-c", "echo one >&2; echo two >&2; exit 3"])
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("one; two") && text.contains('3'), "{text}");
        assert!(run("no-such-program-at-all", &[]).await.is_err());
    }
}

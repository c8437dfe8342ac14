//! Scopes of the user's own systemd.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use banger_bus::{Error, ErrorKind};
use banger_model::VmId;
use banger_vmm::{TASKS_MAX, memory_max};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rustix::process::Signal;
use zbus::wire::Fd;
use zbus::{Connection, Variant, fdo, names::BusName};

use super::manager::{ManagerProxy, ScopeProxy, UnitProxy};
use super::{ScopeSpec, unit_name};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATTERN: &str = "banger-vm-*.scope";
const SLICE: &str = "banger.slice";
/// How long a scope's start may take: systemd moves one process.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a scope may outlive its last process.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// The time that a guest gets when somebody stops its scope; a little more than our own limit.
const STOP_USEC: u64 = 40_000_000;

/// The user's systemd.
pub(crate) struct UserManager {
    bus: Connection,
    manager: ManagerProxy<'static>,
}

impl UserManager {
    /// `None` when there is none on this bus. It is not started: a bus without systemd may
    /// have an activation file for it that fails.
    pub(super) async fn find(bus: &Connection) -> zbus::Result<Option<Self>> {
        let dbus = fdo::DBusProxy::new(bus).await?;
        if !dbus.name_has_owner(BusName::try_from(SYSTEMD)?).await? {
            return Ok(None);
        }
        let manager = ManagerProxy::new(bus).await?;
        // Without it systemd sends no signals. Once for each connection: a second time is none.
        match manager.subscribe().await {
            Err(zbus::Error::MethodError(name, ..)) if name.ends_with(".AlreadySubscribed") => {}
            other => other?,
        }
        Ok(Some(Self {
            bus: bus.clone(),
            manager,
        }))
    }

    pub(super) async fn enclose(&self, scope: &ScopeSpec<'_>) -> Result<String, Error> {
        let unit = unit_name(scope.id);
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::EngineFailed,
                format!("Cannot make the scope {unit}: {e}"),
            )
        };
        match tokio::time::timeout(START_LIMIT, self.start(&unit, scope)).await {
            Ok(Ok(result)) if result == "done" => Ok(unit),
            Ok(Ok(result)) => Err(failed(&format!("systemd's job ended as {result}"))),
            Ok(Err(e)) => Err(failed(&e)),
            Err(_) => Err(failed(&format!(
                "no answer within {} seconds",
                START_LIMIT.as_secs()
            ))),
        }
    }

    /// Returns the result of the start job.
    async fn start(&self, unit: &str, scope: &ScopeSpec<'_>) -> zbus::Result<String> {
        // Listen first: the job may be over before the answer is read.
        let mut removed = self.manager.receive_job_removed().await?;
        let properties = self.properties(scope, true);
        let job = match self
            .manager
            .start_transient_unit(unit, "fail", &properties, &[])
            .await
        {
            Ok(job) => job,
            // Before 255 systemd does not know PIDFDs.
            Err(e) if is_answer(&e) => {
                let properties = self.properties(scope, false);
                self.manager
                    .start_transient_unit(unit, "fail", &properties, &[])
                    .await?
            }
            Err(e) => return Err(e),
        };
        while let Some(signal) = removed.next().await {
            let signal = signal.args()?;
            if *signal.job() == *job {
                return Ok(signal.result().to_string());
            }
        }
        Err(zbus::Error::Failure("the bus is gone".to_owned()))
    }

    fn properties<'a>(&self, scope: &'a ScopeSpec<'_>, by_pidfd: bool) -> Vec<(&'static str, Variant<'a>)> {
        let process = if by_pidfd {
            ("PIDFDs", Variant::from(vec![Fd::from(scope.process.as_fd())]))
        } else {
            ("PIDs", Variant::from(vec![scope.process.pid()]))
        };
        let mut properties = vec![
            process,
            ("Description", Variant::from(format!("banger VM {}", scope.name))),
            ("Documentation", Variant::from(vec![owner_url(scope.directory)])),
            ("Slice", Variant::from(SLICE)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            (
                "MemoryMax",
                Variant::from(memory_max(scope.memory_mib, scope.emulated)),
            ),
            ("TasksMax", Variant::from(TASKS_MAX)),
            ("TimeoutStopUSec", Variant::from(STOP_USEC)),
        ];
        // Who stops the scope then asks us, and we ask the guest.
        if let Some(name) = self.bus.unique_name() {
            properties.push(("Controller", Variant::from(name.to_string())));
        }
        properties
    }

    pub(super) async fn stop_requests(&self, unit: &str) -> zbus::Result<BoxStream<'static, ()>> {
        let path = self.manager.get_unit(unit).await?;
        let scope = ScopeProxy::builder(&self.bus).path(path).build().await?;
        Ok(scope.receive_request_stop().await?.map(drop).boxed())
    }

    /// The numbers of a unit's processes; none where there is no such unit.
    pub(super) async fn processes(&self, unit: &str) -> zbus::Result<Vec<u32>> {
        match self.manager.get_unit_processes(unit).await {
            Ok(processes) => Ok(processes.into_iter().map(|(_, pid, _)| pid).collect()),
            Err(e) if is_answer(&e) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    pub(super) async fn gone(&self, unit: &str) {
        match tokio::time::timeout(GONE_LIMIT, self.await_removal(unit)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(unit, error = %e, "Whether a scope is gone cannot be told"),
            Err(_) => {
                tracing::warn!(unit, "A scope has outlived its VMM and is stopped");
                self.kill(unit).await;
                let _ = self.manager.stop_unit(unit, "replace").await;
                let _ = self.manager.reset_failed_unit(unit).await;
            }
        }
    }

    async fn await_removal(&self, unit: &str) -> zbus::Result<()> {
        let mut removed = self.manager.receive_unit_removed_with_args(&[(0, unit)]).await?;
        match self.manager.get_unit(unit).await {
            Ok(_) => {}
            Err(e) if is_answer(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
        removed.next().await;
        Ok(())
    }

    pub(super) async fn scopes(&self, vms: &Path) -> zbus::Result<Vec<(String, VmId)>> {
        let mut scopes = Vec::new();
        for (name, _, _, _, _, _, path, ..) in self.manager.list_units_by_patterns(&[], &[PATTERN]).await? {
            let unit = UnitProxy::builder(&self.bus).path(path).build().await?;
            // It may be gone meanwhile.
            let documentation = unit.documentation().await.unwrap_or_default();
            if let Some(id) = documentation.iter().find_map(|url| owner_id(url, vms)) {
                scopes.push((name, id));
            }
        }
        Ok(scopes)
    }

    pub(super) async fn kill(&self, unit: &str) {
        if let Err(e) = self.manager.kill_unit(unit, "all", Signal::KILL.as_raw()).await {
            tracing::debug!(unit, error = %e, "A scope was not killed");
        }
    }
}

/// Whether an error is systemd's own, and not one of the way to it.
fn is_answer(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(..) | zbus::Error::FDO(_))
}

/// The VM's directory as systemd takes documentation: ASCII only. It tells scopes of this
/// state directory from those of another.
fn owner_url(directory: &Path) -> String {
    let mut url = String::from("file:");
    for byte in directory.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => url.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(*byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

fn owner_id(url: &str, vms: &Path) -> Option<VmId> {
    url.strip_prefix(&owner_url(vms))?.strip_prefix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_its_owner() {
        let id = VmId::from_bytes([7; 16]);
        let vms = Path::new("/home/ü ser/banger/vms");
        let url = owner_url(&vms.join(id.to_string()));
        assert!(url.is_ascii() && !url.contains(' '), "{url}");
        assert_eq!(owner_id(&url, vms), Some(id));
        assert_eq!(owner_id(&url, Path::new("/home/other/banger/vms")), None);
        assert_eq!(owner_id("file:/home", vms), None);
        assert_eq!(unit_name(id), "banger-vm-070707070707.scope");
    }
}

//! PID 1, as far as the helper needs it: see org.freedesktop.systemd1(5).

use std::time::Duration;

use banger_model::Slot;
use futures_util::StreamExt;
use rustix::process::Signal;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, OwnedObjectPath, Variant, proxy};

const PATTERN: &str = "banger-vm-*.scope";
/// How long PID 1 may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a scope may outlive the SIGKILL of all that was in it.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// A row of `ListUnits`: name, description, load, active and sub state, followed unit, path,
/// and the job's id, type and path.
type UnitRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        auxiliary: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<UnitRow>>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: ObjectPath<'_>, unit: &str, result: &str) -> zbus::Result<()>;
    #[zbus(signal)]
    fn unit_removed(&self, id: &str, unit: ObjectPath<'_>) -> zbus::Result<()>;
}

#[proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
pub trait Unit {
    #[zbus(property(emits_changed_signal = "false"), name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;
}

/// Why PID 1 did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("systemd refused to {what} {unit}")]
    Refused {
        what: &'static str,
        unit: String,
        #[source]
        source: zbus::Error,
    },
    #[error("systemd does not answer")]
    Silent,
    #[error("{0} goes on after everything in it was killed")]
    Stays(String),
}

/// PID 1 and the scopes of slots.
#[derive(Clone)]
pub struct Systemd {
    bus: Connection,
    manager: ManagerProxy<'static>,
}

impl Systemd {
    /// Talks to nobody yet.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn new(bus: &Connection) -> zbus::Result<Self> {
        let manager = ManagerProxy::builder(bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self {
            bus: bus.clone(),
            manager,
        })
    }

    /// Its own interface.
    pub fn manager(&self) -> &ManagerProxy<'static> {
        &self.manager
    }

    /// Asks for the signals of jobs and units, which only subscribers get.
    ///
    /// # Errors
    /// When PID 1 is not there.
    pub async fn subscribe(&self) -> Result<(), SystemdError> {
        let subscribed = limited("be heard by", "systemd", self.manager.subscribe()).await;
        match subscribed {
            // A second time, for this connection.
            Err(SystemdError::Refused { source, .. }) if is_error(&source, "AlreadySubscribed") => Ok(()),
            other => other,
        }
    }

    /// The slots whose scope is there and not over.
    ///
    /// # Errors
    /// When PID 1 does not tell.
    pub async fn scopes(&self) -> Result<Vec<Slot>, SystemdError> {
        let states = ["active", "activating", "deactivating", "reloading"];
        let listing = self.manager.list_units_by_patterns(&states, &[PATTERN]);
        let rows = limited("list", PATTERN, listing).await?;
        let mut slots: Vec<Slot> = rows.iter().filter_map(|row| slot_of(&row.0)).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    /// The 128 bits of this start of the slot's scope; `None` when it is not there.
    ///
    /// # Errors
    /// When PID 1 does not tell.
    pub async fn invocation(&self, slot: Slot) -> Result<Option<[u8; 16]>, SystemdError> {
        let unit = slot.unit();
        let path = match limited("look at", &unit, self.manager.get_unit(&unit)).await {
            Ok(path) => path,
            Err(SystemdError::Refused { source, .. }) if is_no_unit(&source) => return Ok(None),
            Err(error) => return Err(error),
        };
        let asking = async {
            UnitProxy::builder(&self.bus)
                .path(path)
                .cache_properties(CacheProperties::No)
                .build()
                .await?
                .invocation_id()
                .await
        };
        let id = limited("look at", &unit, asking).await?;
        Ok(id.try_into().ok())
    }

    /// Sends a signal to all processes of the slot's scope; nothing when it is not there.
    ///
    /// # Errors
    /// When PID 1 refuses.
    pub async fn signal(&self, slot: Slot, signal: Signal) -> Result<(), SystemdError> {
        let unit = slot.unit();
        let killing = self.manager.kill_unit(&unit, "all", signal.as_raw());
        match limited("signal", &unit, killing).await {
            Err(SystemdError::Refused { source, .. }) if is_no_unit(&source) => Ok(()),
            other => other,
        }
    }

    /// Kills all processes of the slot's scope and waits until the scope is gone.
    ///
    /// # Errors
    /// When PID 1 refuses, or something cannot be killed.
    pub async fn end(&self, slot: Slot) -> Result<(), SystemdError> {
        let unit = slot.unit();
        self.subscribe().await?;
        let about = [(0, &*unit)];
        let listening = self.manager.receive_unit_removed_with_args(&about);
        let mut removed = limited("watch", &unit, listening).await?;
        if !self.is_loaded(&unit).await? {
            return Ok(());
        }
        self.signal(slot, Signal::KILL).await?;
        let gone = async {
            // One that has failed stays until somebody has seen that.
            let _ = self.manager.reset_failed_unit(&unit).await;
            if self.is_loaded(&unit).await? {
                removed.next().await;
            }
            Ok(())
        };
        tokio::time::timeout(GONE_LIMIT, gone)
            .await
            .unwrap_or(Err(SystemdError::Stays(unit.clone())))
    }

    async fn is_loaded(&self, unit: &str) -> Result<bool, SystemdError> {
        match limited("look at", unit, self.manager.get_unit(unit)).await {
            Ok(_) => Ok(true),
            Err(SystemdError::Refused { source, .. }) if is_no_unit(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The slot of a scope's name, which has one spelling.
fn slot_of(unit: &str) -> Option<Slot> {
    let number = unit.strip_prefix("banger-vm-")?.strip_suffix(".scope")?;
    let slot = Slot::new(number.parse().ok()?).ok()?;
    (slot.unit() == unit).then_some(slot)
}

async fn limited<T>(
    what: &'static str,
    unit: &str,
    asking: impl Future<Output = zbus::Result<T>>,
) -> Result<T, SystemdError> {
    let refused = |source| SystemdError::Refused {
        what,
        unit: unit.to_owned(),
        source,
    };
    match tokio::time::timeout(ANSWER_LIMIT, asking).await {
        Ok(answer) => answer.map_err(refused),
        Err(_) => Err(SystemdError::Silent),
    }
}

fn is_no_unit(error: &zbus::Error) -> bool {
    is_error(error, "NoSuchUnit")
}

fn is_error(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, ..)
        if full.strip_prefix("org.freedesktop.systemd1.") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_is_a_slots_scope() {
        assert_eq!(slot_of("banger-vm-7.scope"), Slot::new(7).ok());
        for other in [
            "banger-vm-07.scope",
            "banger-vm-+7.scope",
            "banger-vm-512.scope",
            "banger-vm-7.service",
        ] {
            assert_eq!(slot_of(other), None, "{other}");
        }
    }
}

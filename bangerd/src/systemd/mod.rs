//! Where a VMM's process lives: in a transient scope of the user's systemd where one answers,
//! else as a plain child in its own session. In both it outlives the daemon.

mod manager;
mod user;

use std::path::Path;
use std::time::Duration;

use banger_bus::Error;
use banger_model::VmId;
use banger_sys::pidfd::Pidfd;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use zbus::Connection;

use user::UserManager;

/// How long the user's systemd may take to show that it is there.
const DETECT_LIMIT: Duration = Duration::from_secs(2);

/// Who keeps the VMMs' processes.
pub(crate) enum Runner {
    /// Nobody: they are children, and orphans once the daemon ends.
    Plain,
    User(UserManager),
}

/// What a scope is to hold.
pub(crate) struct ScopeSpec<'a> {
    pub id: VmId,
    /// The VM's name, for people.
    pub name: &'a str,
    pub memory_mib: u64,
    pub emulated: bool,
    /// The VM's directory: says whose the scope is.
    pub directory: &'a Path,
    pub process: &'a Pidfd,
}

/// The scope of a VM.
pub(crate) fn unit_name(id: VmId) -> String {
    format!("banger-vm-{}.scope", id.short())
}

impl Runner {
    /// Finds the user's systemd on a bus. Nothing is started by that.
    pub(crate) async fn detect(bus: Option<Connection>) -> Self {
        let Some(bus) = bus else {
            return Self::Plain;
        };
        match tokio::time::timeout(DETECT_LIMIT, UserManager::find(&bus)).await {
            Ok(Ok(Some(manager))) => Self::User(manager),
            Ok(Ok(None)) => Self::Plain,
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "The user's systemd is not used: it refused");
                Self::Plain
            }
            Err(_) => {
                tracing::warn!("The user's systemd is not used: it does not answer");
                Self::Plain
            }
        }
    }

    /// Whether VMMs get scopes.
    pub(crate) fn has_scopes(&self) -> bool {
        matches!(self, Self::User(_))
    }

    /// Puts a process into its VM's scope, whose name it returns; empty where there is none.
    ///
    /// # Errors
    /// `EngineFailed` when systemd refuses.
    pub(crate) async fn enclose(&self, scope: &ScopeSpec<'_>) -> Result<String, Error> {
        match self {
            Self::Plain => Ok(String::new()),
            Self::User(manager) => manager.enclose(scope).await,
        }
    }

    /// Yields whenever somebody stops a scope by systemd. Never ends.
    pub(crate) async fn stop_requests(&self, unit: &str) -> BoxStream<'static, ()> {
        if let Self::User(manager) = self
            && !unit.is_empty()
        {
            match manager.stop_requests(unit).await {
                Ok(requests) => return requests.chain(stream::pending()).boxed(),
                Err(e) => {
                    tracing::warn!(unit, error = %e, "A stop by systemd will end this VM without asking its guest");
                }
            }
        }
        stream::pending().boxed()
    }

    /// Waits until the scope of a process that has ended is gone.
    pub(crate) async fn gone(&self, unit: &str) {
        if let Self::User(manager) = self
            && !unit.is_empty()
        {
            manager.gone(unit).await;
        }
    }

    /// The scopes of VMs below `vms`, each with its VM's id.
    pub(crate) async fn scopes(&self, vms: &Path) -> Vec<(String, VmId)> {
        match self {
            Self::Plain => Vec::new(),
            Self::User(manager) => manager.scopes(vms).await.unwrap_or_else(|e| {
                tracing::warn!(error = %e, "The scopes cannot be listed");
                Vec::new()
            }),
        }
    }

    /// The numbers of a scope's processes.
    pub(crate) async fn processes(&self, unit: &str) -> Vec<u32> {
        match self {
            Self::Plain => Vec::new(),
            Self::User(manager) => manager.processes(unit).await.unwrap_or_else(|e| {
                tracing::warn!(unit, error = %e, "The processes of a scope cannot be listed");
                Vec::new()
            }),
        }
    }

    /// Kills everything in a scope.
    pub(crate) async fn kill(&self, unit: &str) {
        if let Self::User(manager) = self {
            manager.kill(unit).await;
        }
    }
}

//! The daemon as the commands see it: a connection, the objects behind it, and its jobs.

mod connect;
mod job;
mod session_bus;
mod start;
mod vms;

use std::collections::HashMap;
use std::env;
use std::sync::Arc;

use banger_bus::{ImageInfo, KernelInfo, ManagerProxy, SERVICE, VmInfo, path};
use banger_model::Dirs;
use tokio::sync::OnceCell;
use zbus::names::InterfaceName;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, fdo};

use crate::error::Result;

pub(crate) use connect::Transport;
pub(crate) use job::{Event, Jobs, done, lost};
pub(crate) use start::{daemon_program, log_tail};
pub(crate) use vms::Vm;

/// A connection to the daemon.
pub(crate) struct Client {
    connection: Connection,
    transport: Transport,
    jobs: OnceCell<Arc<Jobs>>,
}

/// Everything the daemon knows, in one answer.
#[derive(Debug, Default)]
pub(crate) struct Everything {
    pub(crate) vms: Vec<VmInfo>,
    pub(crate) images: Vec<ImageInfo>,
    pub(crate) kernels: Vec<KernelInfo>,
}

/// The user's directories.
pub(crate) fn dirs() -> Result<Dirs> {
    Ok(Dirs::resolve(|key| env::var_os(key))?)
}

impl Client {
    /// Connects to the daemon, and starts it where it does not run.
    pub(crate) async fn connect() -> Result<Self> {
        let (connection, transport) = connect::connect(&dirs()?).await?;
        Ok(Self::new(connection, transport))
    }

    /// Connects to a daemon that runs already; never starts one.
    pub(crate) async fn connect_running() -> Result<Option<Self>> {
        let found = connect::connect_running(&dirs()?).await?;
        Ok(found.map(|(connection, transport)| Self::new(connection, transport)))
    }

    fn new(connection: Connection, transport: Transport) -> Self {
        Self {
            connection,
            transport,
            jobs: OnceCell::new(),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) async fn manager(&self) -> Result<ManagerProxy<'static>> {
        Ok(ManagerProxy::new(&self.connection).await?)
    }

    /// All VMs, images and kernels, each sorted by name.
    pub(crate) async fn everything(&self) -> Result<Everything> {
        let manager = fdo::ObjectManagerProxy::new(&self.connection, SERVICE, path::MANAGER).await?;
        let mut all = Everything::default();
        for interfaces in manager.get_managed_objects().await?.values() {
            for (interface, properties) in interfaces {
                match interface.as_str() {
                    "org.banger.VM" => all.vms.push(VmInfo::from_properties(properties)?),
                    "org.banger.Image" => all.images.push(ImageInfo::from_properties(properties)?),
                    "org.banger.Kernel" => all.kernels.push(KernelInfo::from_properties(properties)?),
                    _ => {}
                }
            }
        }
        all.vms.sort_by(|a, b| a.name.cmp(&b.name));
        all.images.sort_by(|a, b| a.name.cmp(&b.name));
        all.kernels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// All properties of one interface of an object.
    pub(crate) async fn properties(
        &self,
        path: &OwnedObjectPath,
        interface: &'static str,
    ) -> Result<HashMap<String, OwnedVariant>> {
        let proxy = fdo::PropertiesProxy::new(&self.connection, SERVICE, path).await?;
        Ok(proxy
            .get_all(InterfaceName::from_static_str_unchecked(interface))
            .await?)
    }

    /// The jobs' signals. The first call subscribes to them, so it comes before the call that
    /// makes a job.
    pub(crate) async fn jobs(&self) -> Result<&Arc<Jobs>> {
        self.jobs
            .get_or_try_init(|| Jobs::subscribe(&self.connection))
            .await
    }
}

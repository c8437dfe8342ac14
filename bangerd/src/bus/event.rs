//! What is told on a connection.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use banger_bus::api::{ImageApi, JobApi, KernelApi, VmApi};
use banger_bus::{
    ImageObject, JobInfo, JobObject, JobOutcome, KernelObject, ManagerObject, ProcessObject, VmInfo,
    VmObject, path,
};
use tokio::sync::oneshot;
use zbus::fdo::Properties;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, OwnedObjectPath, Variant};

/// An object below the manager.
#[derive(Clone)]
pub(super) enum Object {
    Vm(Arc<dyn VmApi>),
    Image(Arc<dyn ImageApi>),
    Kernel(Arc<dyn KernelApi>),
    Job(Arc<dyn JobApi>),
    /// A job that is a process: two interfaces at one path.
    Process(Arc<dyn JobApi>),
}

#[derive(Clone)]
pub(super) struct Event {
    pub(super) path: OwnedObjectPath,
    pub(super) news: News,
}

#[derive(Clone)]
pub(super) enum News {
    Added(Object),
    Removed(Object),
    Vm(Arc<dyn VmApi>, Arc<(VmInfo, VmInfo)>),
    Job(Arc<(JobInfo, JobInfo)>),
    Ended(Object, u32, Arc<JobOutcome>),
}

/// An event and who waits until it has been told.
pub(super) struct Queued {
    pub(super) event: Event,
    pub(super) told: Option<oneshot::Sender<()>>,
}

impl Object {
    /// Adds the object to a connection. What is there already is replaced.
    pub(super) async fn add(self, connection: &Connection, path: &OwnedObjectPath) -> zbus::Result<()> {
        let server = connection.object_server();
        let there = match self.clone() {
            Self::Vm(api) => server.at(path, VmObject { api }).await?.is_some(),
            Self::Image(api) => server.at(path, ImageObject { api }).await?.is_some(),
            Self::Kernel(api) => server.at(path, KernelObject { api }).await?.is_some(),
            Self::Job(api) => server.at(path, JobObject { api }).await?.is_some(),
            Self::Process(api) => {
                // First the process: who sees the job finds it whole.
                let process = ProcessObject { api: api.clone() };
                server.at(path, process).await?.is_some()
                    | server.at(path, JobObject { api }).await?.is_some()
            }
        };
        if there {
            self.clone().remove(connection, path).await?;
            Box::pin(self.add(connection, path)).await?;
        }
        Ok(())
    }

    async fn remove(self, connection: &Connection, path: &OwnedObjectPath) -> zbus::Result<()> {
        let server = connection.object_server();
        match self {
            Self::Vm(_) => server.remove::<VmObject, _>(path).await?,
            Self::Image(_) => server.remove::<ImageObject, _>(path).await?,
            Self::Kernel(_) => server.remove::<KernelObject, _>(path).await?,
            Self::Job(_) => server.remove::<JobObject, _>(path).await?,
            Self::Process(_) => {
                server.remove::<JobObject, _>(path).await?;
                server.remove::<ProcessObject, _>(path).await?
            }
        };
        Ok(())
    }
}

impl Event {
    /// Tells it on one connection.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) async fn tell(self, connection: &Connection) -> zbus::Result<()> {
        let path = self.path;
        let emitter = SignalEmitter::new(connection, path.as_ref())?;
        match self.news {
            News::Added(object) => object.add(connection, &path).await,
            News::Removed(object) => object.remove(connection, &path).await,
            News::Vm(api, change) => {
                let (before, after) = &*change;
                VmObject { api }.emit_changes(before, after, &emitter).await
            }
            News::Job(change) => job_changes(&change.0, &change.1, &emitter).await,
            News::Ended(object, id, outcome) => {
                outcome.emit(&emitter).await?;
                let manager = SignalEmitter::new(connection, path::MANAGER)?;
                ManagerObject::job_removed(&manager, id, path.as_ref(), outcome.result.as_str()).await?;
                object.remove(connection, &path).await
            }
        }
    }
}

/// Tells all that has changed in one signal: whoever follows a job sees it as it was at a moment.
async fn job_changes(before: &JobInfo, after: &JobInfo, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
    let mut changed = HashMap::new();
    if before.object != after.object {
        changed.insert("Object", Variant::from(after.object.as_ref()));
    }
    if before.stage != after.stage {
        changed.insert("Stage", Variant::from(&after.stage));
    }
    if before.message != after.message {
        changed.insert("Message", Variant::from(&after.message));
    }
    if before.parts != after.parts {
        changed.insert("Parts", Variant::from(&after.parts));
    }
    // In whole comparison: what has not moved is not told again.
    if before.fraction.to_bits() != after.fraction.to_bits() {
        changed.insert("Fraction", Variant::from(after.fraction));
    }
    let interface = JobObject::name();
    Properties::properties_changed(emitter, interface, changed, Cow::Borrowed(&[])).await
}

//! All objects and all connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use banger_bus::api::{Caller, ImageApi, JobApi, KernelApi, ManagerApi, VmApi};
use banger_bus::{JobInfo, JobOutcome, VmInfo};
use banger_model::VmState;
use tokio::sync::{Notify, oneshot};
use zbus::OwnedObjectPath;

use super::event::{Event, News, Object, Queued};
use super::idle::Idle;
use super::peer::Peer;

/// Tells every connection of every object. Clones are the same hub.
#[derive(Clone)]
pub(crate) struct Bus(Arc<Shared>);

struct Shared {
    manager: OnceLock<Arc<dyn ManagerApi>>,
    state: Mutex<State>,
    idle: Idle,
    /// Told when a connection has ended.
    departure: Notify,
}

#[derive(Default)]
struct State {
    objects: HashMap<OwnedObjectPath, Object>,
    peers: HashMap<u64, Peer>,
    last_peer: u64,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            manager: OnceLock::new(),
            state: Mutex::default(),
            idle: Idle::new(),
            departure: Notify::new(),
        }))
    }

    /// Sets who answers for the manager's object. Only the first call counts; no connection is
    /// served before.
    pub(crate) fn manage(&self, manager: Arc<dyn ManagerApi>) {
        // A second manager would be a second daemon in one process: only tests have that.
        let _ = self.0.manager.set(manager);
    }

    pub(crate) fn vm_added(&self, path: &OwnedObjectPath, vm: Arc<dyn VmApi>) {
        self.add(path, Object::Vm(vm));
    }

    /// Tells what differs between two states of a VM.
    pub(crate) fn vm_changed(&self, path: &OwnedObjectPath, before: &VmInfo, after: &VmInfo) {
        let mut state = self.lock();
        if let Some(Object::Vm(api)) = state.objects.get(path) {
            let news = News::Vm(api.clone(), Arc::new((before.clone(), after.clone())));
            state.tell(path, news);
        }
        drop(state);
        self.0.idle.touch();
        self.0.idle.look_again();
    }

    pub(crate) fn image_added(&self, path: &OwnedObjectPath, image: Arc<dyn ImageApi>) {
        self.add(path, Object::Image(image));
    }

    pub(crate) fn kernel_added(&self, path: &OwnedObjectPath, kernel: Arc<dyn KernelApi>) {
        self.add(path, Object::Kernel(kernel));
    }

    /// Removes a VM, an image or a kernel.
    pub(crate) fn removed(&self, path: &OwnedObjectPath) {
        let mut state = self.lock();
        if let Some(object) = state.objects.remove(path) {
            state.tell(path, News::Removed(object));
        }
        drop(state);
        self.0.idle.look_again();
    }

    /// Adds a job, and returns when the caller's connection has it, or is gone.
    pub(crate) async fn job_added(
        &self,
        path: &OwnedObjectPath,
        job: Arc<dyn JobApi>,
        process: bool,
        caller: &Caller,
    ) {
        let object = if process {
            Object::Process(job)
        } else {
            Object::Job(job)
        };
        let (told, waiting) = oneshot::channel();
        {
            let mut state = self.lock();
            state.objects.insert(path.clone(), object.clone());
            let event = Event {
                path: path.clone(),
                news: News::Added(object),
            };
            state.send(&event, Some((caller, told)));
        }
        // An error says that nobody will tell: the connection is not ours or has ended.
        let _ = waiting.await;
    }

    pub(crate) fn job_changed(&self, path: &OwnedObjectPath, before: &JobInfo, after: &JobInfo) {
        let mut state = self.lock();
        if state.objects.contains_key(path) {
            state.tell(path, News::Job(Arc::new((before.clone(), after.clone()))));
        }
    }

    /// Tells how a job ended and removes it.
    pub(crate) fn job_ended(&self, path: &OwnedObjectPath, id: u32, outcome: JobOutcome) {
        let mut state = self.lock();
        if let Some(object) = state.objects.remove(path) {
            state.tell(path, News::Ended(object, id, Arc::new(outcome)));
        }
        drop(state);
        self.0.idle.touch();
        self.0.idle.look_again();
    }

    /// Whether a job runs or a VM lives.
    pub(crate) fn is_busy(&self) -> bool {
        let jobs = self
            .lock()
            .objects
            .values()
            .any(|object| matches!(object, Object::Job(_) | Object::Process(_)));
        jobs || self
            .vms()
            .iter()
            .any(|vm| vm.state.parse().is_ok_and(VmState::is_live))
    }

    /// All VMs as they are now.
    pub(crate) fn vms(&self) -> Vec<VmInfo> {
        let state = self.lock();
        let vms = state.objects.values().filter_map(|object| match object {
            Object::Vm(api) => Some(api.clone()),
            _ => None,
        });
        let vms: Vec<_> = vms.collect();
        drop(state);
        vms.iter().map(|api| api.info()).collect()
    }

    pub(crate) fn idle(&self) -> &Idle {
        &self.0.idle
    }

    /// Waits until a connection ends, or has ended since the last call. For one waiter.
    pub(crate) async fn departure(&self) {
        self.0.departure.notified().await;
    }

    pub(super) fn manager(&self) -> Option<Arc<dyn ManagerApi>> {
        self.0.manager.get().cloned()
    }

    /// Adds a connection that is about to be made, and returns its number and what it has to
    /// serve from its beginning. What changes from now on is in its queue.
    pub(super) fn join(&self, peer: Peer) -> (u64, Vec<(OwnedObjectPath, Object)>) {
        let mut state = self.lock();
        state.last_peer += 1;
        let number = state.last_peer;
        state.peers.insert(number, peer);
        let objects = state.objects.iter().map(|(p, o)| (p.clone(), o.clone()));
        let objects = objects.collect();
        (number, objects)
    }

    /// Whether somebody is connected to the private socket.
    pub(crate) fn has_clients(&self) -> bool {
        self.lock().peers.values().any(Peer::is_private)
    }

    /// How many connections are served.
    #[cfg(test)]
    pub(super) fn clients(&self) -> usize {
        self.lock().peers.len()
    }

    pub(super) fn leave(&self, number: u64) {
        self.lock().peers.remove(&number);
        self.0.departure.notify_one();
        self.0.idle.touch();
        self.0.idle.look_again();
    }

    fn add(&self, path: &OwnedObjectPath, object: Object) {
        let mut state = self.lock();
        if let Some(before) = state.objects.insert(path.clone(), object.clone()) {
            state.tell(path, News::Removed(before));
        }
        state.tell(path, News::Added(object));
        drop(state);
        self.0.idle.look_again();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, path: &OwnedObjectPath, news: News) {
        let event = Event {
            path: path.clone(),
            news,
        };
        self.send(&event, None);
    }

    fn send(&mut self, event: &Event, mut told: Option<(&Caller, oneshot::Sender<()>)>) {
        self.peers.retain(|number, peer| {
            let told = match &told {
                Some((caller, _)) if peer.is_of(caller) => told.take().map(|(_, told)| told),
                _ => None,
            };
            let queued = Queued {
                event: event.clone(),
                told,
            };
            let kept = peer.push(queued);
            if !kept {
                tracing::warn!(number, "Dropped a client that does not read");
            }
            kept
        });
    }
}

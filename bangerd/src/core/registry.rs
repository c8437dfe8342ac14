//! All VMs of the owner, and what they share.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use banger_bus::Error;
use banger_model::{Config, Dirs, EngineChoice, VmId};
use banger_store::{Store, VmRecord};
use banger_sys::launch::Launcher;
use futures_util::stream::BoxStream;
use tokio::sync::Mutex as AsyncMutex;

use super::Publish;
use super::capability::VmPaths;
use super::defaults::{Defaults, Host};
use super::engine::Engines;
use super::machine::lock;
use super::sources::Sources;
use super::store::Database;
use super::vm::Vm;
use super::{error, lookup};
use crate::helper::Helper;
use crate::systemd::Runner;

/// What the daemon was started with.
pub(crate) struct Settings {
    pub dirs: Dirs,
    pub config: Config,
    /// Lines of authorized_keys(5) that every guest trusts.
    pub authorized_keys: Vec<String>,
    /// The bus on which the user's systemd may be.
    pub session_bus: Option<zbus::Connection>,
    /// System mode's helper, where there is one.
    pub helper: Helper,
    pub sources: Arc<dyn Sources>,
    /// What becomes a VMM; [`Launcher::this_program`] outside of tests.
    pub launcher: Launcher,
}

/// The VMs of this owner.
pub(crate) struct Core {
    settings: Settings,
    host: Host,
    database: Database,
    publish: Arc<dyn Publish>,
    engines: Engines,
    runner: Runner,
    /// Held by whoever takes slots, or looks for those of no VM.
    slots_turn: AsyncMutex<()>,
    vms: Mutex<BTreeMap<VmId, Arc<Vm>>>,
}

impl Core {
    /// Opens the owner's state, repairs what an earlier daemon left, and takes its running VMs
    /// over. When it returns every VM has been published.
    ///
    /// # Errors
    /// `StoreUnusable` with the database untouched when it is of a newer version.
    pub(crate) async fn open(settings: Settings, publish: Arc<dyn Publish>) -> Result<Arc<Self>, Error> {
        let path = settings.dirs.database();
        let store = tokio::task::spawn_blocking(move || Store::open(&path))
            .await
            .map_err(|e| error::failed("Cannot open the database", &e))?
            .map_err(|e| error::store(&e))?;
        let runner = Runner::detect(settings.session_bus.clone()).await;
        let core = Arc::new(Self {
            host: Host::of(&settings.dirs.state),
            database: Database::new(store)?,
            publish,
            engines: Engines::default(),
            runner,
            slots_turn: AsyncMutex::default(),
            vms: Mutex::new(BTreeMap::new()),
            settings,
        });
        core.look_for_helper().await;
        core.recover().await?;
        tokio::spawn(Self::follow_clock(Arc::downgrade(&core)));
        // Nobody waits for what belongs to no VM.
        tokio::spawn({
            let core = core.clone();
            async move { core.settle_slots().await }
        });
        Ok(core)
    }

    /// All VMs, by id.
    pub(crate) fn vms(&self) -> Vec<Arc<Vm>> {
        lock(&self.vms).values().cloned().collect()
    }

    pub(crate) fn get(&self, id: VmId) -> Option<Arc<Vm>> {
        lock(&self.vms).get(&id).cloned()
    }

    /// A VM by what people type: see [`lookup::find`].
    ///
    /// # Errors
    /// `NoSuchVm`, `AmbiguousVm`.
    pub(crate) fn look_up(&self, text: &str) -> Result<Arc<Vm>, Error> {
        let vms = lock(&self.vms);
        let names: Vec<_> = vms.values().map(|vm| (vm.id(), vm.name())).collect();
        let id = lookup::find(text, &names)?;
        vms.get(&id)
            .cloned()
            .ok_or_else(|| Error::new(banger_bus::ErrorKind::NoSuchVm, format!("No such VM: {text:?}")))
    }

    /// Whether a VM runs or is worked on: the daemon must not leave.
    pub(crate) fn is_busy(&self) -> bool {
        lock(&self.vms).values().any(|vm| vm.is_busy())
    }

    /// The defaults of a new VM.
    pub(crate) fn defaults(&self) -> Defaults {
        Defaults::new(&self.settings.config.vm_defaults, self.host)
    }

    /// Which engines there are, and what accelerates them.
    pub(crate) fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Has the engine found out about while something else is done: the first time it takes
    /// as long as all other work for a VM together.
    pub(super) fn warm_up(self: &Arc<Self>, wanted: EngineChoice) {
        let core = self.clone();
        // An error comes again where the engine is needed.
        tokio::spawn(async move { drop(core.engines.choose(wanted, core.helper().is_willing()).await) });
    }

    pub(crate) fn dirs(&self) -> &Dirs {
        &self.settings.dirs
    }

    pub(super) fn host(&self) -> Host {
        self.host
    }

    pub(super) fn launcher(&self) -> &Launcher {
        &self.settings.launcher
    }

    pub(super) fn sources(&self) -> &Arc<dyn Sources> {
        &self.settings.sources
    }

    pub(super) fn authorized_keys(&self) -> &[String] {
        &self.settings.authorized_keys
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn publish(&self) -> &Arc<dyn Publish> {
        &self.publish
    }

    pub(super) fn runner(&self) -> &Runner {
        &self.runner
    }

    /// System mode's helper.
    pub(crate) fn helper(&self) -> &Helper {
        &self.settings.helper
    }

    pub(super) fn slots_turn(&self) -> &AsyncMutex<()> {
        &self.slots_turn
    }

    /// Waits until the scope of a VMM that has ended is gone.
    pub(super) async fn scope_gone(&self, vm: &VmRecord) {
        match vm.slot {
            None => self.runner.gone(&vm.unit).await,
            Some(_) => self.system_runner().await.gone(&vm.unit).await,
        }
    }

    /// Yields whenever somebody stops a VM's scope by systemd. Never ends.
    pub(super) async fn stop_requests(&self, vm: &VmRecord) -> BoxStream<'static, ()> {
        match vm.slot {
            None => self.runner.stop_requests(&vm.unit).await,
            Some(_) => self.system_runner().await.stop_requests(&vm.unit).await,
        }
    }

    /// The system's systemd, of which we only hear.
    pub(super) async fn system_runner(&self) -> Runner {
        Runner::detect(self.helper().connection().await.ok()).await
    }

    pub(super) fn paths(&self, id: VmId) -> VmPaths {
        VmPaths::new(&self.settings.dirs, id)
    }

    pub(super) fn is_name_taken(&self, name: &str) -> bool {
        lock(&self.vms).values().any(|vm| vm.name() == name)
    }

    pub(super) fn insert(&self, vm: &Arc<Vm>) {
        lock(&self.vms).insert(vm.id(), vm.clone());
    }

    pub(super) fn remove(&self, id: VmId) {
        lock(&self.vms).remove(&id);
    }

    /// A stream into the journal for a VM's console, where its lines land under its own scope.
    pub(super) fn journal_stream(&self, vm: &VmRecord) -> Option<OwnedFd> {
        if vm.slot.is_none() && !self.runner.has_scopes() {
            return None;
        }
        match banger_sys::journal::journal_stream(vm.spec.name.as_str()) {
            Ok(stream) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "The journal takes no console: it goes to a file");
                None
            }
        }
    }
}

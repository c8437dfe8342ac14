//! What every object of the contract needs.

use std::path::PathBuf;
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, Result, VmInfo};
use banger_model::{Config, Dirs, VmId};
use tokio::sync::watch;

use super::agents::Agents;
use crate::bus::Bus;
use crate::catalog::Library;
use crate::config::ConfigFile;
use crate::core::Vm;
use crate::guest::{ClientKey, Gone, KnownHosts, SshConfig};
use crate::jobs::Jobs;
use crate::names::Names;
use crate::ports::Ports;

pub(crate) struct Services {
    pub(crate) bus: Bus,
    pub(crate) jobs: Jobs,
    pub(crate) config: ConfigFile,
    pub(crate) library: Arc<Library>,
    pub(crate) known_hosts: KnownHosts,
    pub(crate) ssh_config: SshConfig,
    pub(crate) names: Names,
    /// The owner's key, or why there is none.
    key: Result<ClientKey>,
    pub(super) agents: Agents,
    /// The ways to what is published, apart: who does not read there holds up no command.
    forwards: Agents,
    pub(super) ports: Ports,
    /// Told when a VM stops.
    stops: watch::Sender<()>,
}

impl Services {
    /// Reads the configuration and the owner's key, shows images and kernels. What is wrong with
    /// the owner's files is told to whoever needs them. Blocks.
    pub(crate) fn open(dirs: &Dirs, bus: Bus) -> Arc<Self> {
        let jobs = Jobs::new(bus.clone());
        let config = ConfigFile::new(dirs);
        let library = Library::open(dirs.clone(), config.clone(), bus.clone(), jobs.clone());
        let ssh_config = SshConfig::new(dirs, key_file(&config.read().unwrap_or_default(), dirs));
        let key = config
            .read()
            .and_then(|config| client_key(&config, dirs))
            .map_err(|error| error.hint(restart_hint()));
        if let Err(error) = &key {
            tracing::error!(%error, "The owner's files cannot be used");
        }
        Arc::new(Self {
            bus,
            jobs,
            config,
            library,
            known_hosts: KnownHosts::new(&dirs.state),
            ssh_config,
            names: Names::new(),
            key,
            agents: Agents::default(),
            forwards: Agents::default(),
            ports: Ports::default(),
            stops: watch::Sender::new(()),
        })
    }

    /// Waits until a VM does not run.
    pub(super) async fn stopped(&self, vm: &Vm) {
        let mut stops = self.stops.subscribe();
        // The sender lives as long as self.
        let _ = stops.wait_for(|()| !vm.state().is_live()).await;
    }

    /// Has those of a VM's published ports open that it can be reached by now.
    pub(super) fn keep_ports(self: &Arc<Self>, vm: &Arc<Vm>, info: &VmInfo) {
        if info.ssh_port == 0 {
            return self.close_ports(vm.id());
        }
        let (services, of) = (Arc::downgrade(self), Arc::downgrade(vm));
        self.ports.keep(vm.id(), &info.published_ports, move || {
            match (services.upgrade(), of.upgrade()) {
                (Some(services), Some(vm)) => services.forwards.get(vm.id(), vm.agent()?, services.key()?),
                _ => Err(Error::new(ErrorKind::NoSuchVm, "The VM is gone")),
            }
        });
    }

    /// Closes what is published of a VM that is not reached any more.
    pub(super) fn close_ports(&self, id: VmId) {
        self.ports.close(id);
        self.forwards.hang_up(id, Gone::Ended);
    }

    /// Ends the connections to what is published of a guest that has started anew.
    pub(super) fn hang_up_ports(&self, id: VmId) {
        self.forwards.hang_up(id, Gone::Restarted);
    }

    /// Tells that some VM has stopped.
    pub(super) fn tell_stop(&self) {
        self.stops.send_replace(());
    }

    /// The owner's key.
    ///
    /// # Errors
    /// Why there is none; a better configuration counts from the daemon's next start.
    pub(crate) fn key(&self) -> Result<&ClientKey> {
        self.key.as_ref().map_err(Error::clone)
    }
}

/// What is corrected while the daemon runs does not count: guests learn the key at their start.
fn restart_hint() -> String {
    format!(
        "The daemon read this when it started; when it is corrected, end it with `kill {}`: VMs keep running.",
        std::process::id()
    )
}

fn client_key(config: &Config, dirs: &Dirs) -> Result<ClientKey> {
    Ok(ClientKey::load_or_make(
        configured_key(config).as_deref(),
        &dirs.state,
    )?)
}

fn key_file(config: &Config, dirs: &Dirs) -> PathBuf {
    configured_key(config).unwrap_or_else(|| dirs.ssh_key())
}

fn configured_key(config: &Config) -> Option<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    config.ssh_key_path.as_ref().map(|path| path.resolve(&home))
}

//! VMs as they change: on the bus, and in the file by which ssh knows them.

use std::sync::Arc;

use async_trait::async_trait;
use banger_bus::{Result, VmInfo, path};
use banger_model::{VmId, VmState};

use super::services::Services;
use super::vm::VmEntry;
use crate::core::progress::JobContext;
use crate::core::{Publish, Vm};
use crate::file_sync;
use crate::guest::Gone;

pub(crate) struct Publisher(pub(crate) Arc<Services>);

impl Publisher {
    fn note_key(&self, id: VmId, info: &VmInfo) {
        if info.host_key.is_empty() {
            return;
        }
        if let Err(error) = self.0.known_hosts.set(id, &info.host_key) {
            tracing::warn!(%error, "ssh will not know a guest");
        }
    }

    /// Connects to a guest that has just come up, so that its first command does not have to.
    fn meet(&self, vm: &Arc<Vm>) {
        let (Ok(key), Ok(address)) = (self.0.key(), vm.agent()) else {
            return;
        };
        let Ok(agent) = self.0.agents.get(vm.id(), address, key) else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = agent.warm().await {
                tracing::debug!(%error, "No connection to a guest yet");
            }
        });
    }
}

#[async_trait]
impl Publish for Publisher {
    fn vm_added(&self, vm: &Arc<Vm>) {
        let info = vm.info();
        self.note_key(vm.id(), &info);
        self.0.names.set(vm.id(), &info);
        self.0.ssh_config.set(vm.id(), &info);
        self.0.keep_ports(vm, &info);
        let entry = VmEntry::new(vm, &self.0);
        self.0.bus.vm_added(&path::vm(&info.id), Arc::new(entry));
    }

    fn vm_changed(&self, vm: &Arc<Vm>, before: &VmInfo, after: &VmInfo) {
        if before.host_key != after.host_key {
            self.note_key(vm.id(), after);
        }
        if before.address != after.address || before.name != after.name {
            self.0.names.set(vm.id(), after);
        }
        self.0.ssh_config.set(vm.id(), after);
        let running = VmState::Running.as_str();
        if before.state != running && after.state == running {
            self.meet(vm);
        }
        let up = [running, VmState::Paused.as_str()];
        if up.contains(&before.state.as_str()) && after.state == VmState::Starting.as_str() {
            self.0.agents.hang_up(vm.id(), Gone::Restarted);
            self.0.hang_up_ports(vm.id());
        }
        if before.published_ports != after.published_ports || before.ssh_port != after.ssh_port {
            self.0.keep_ports(vm, after);
        }
        if after.ssh_port == 0 {
            self.0.agents.hang_up(vm.id(), Gone::Ended);
        }
        if !after.state.parse().is_ok_and(VmState::is_live) {
            self.0.tell_stop();
        }
        self.0.bus.vm_changed(&path::vm(&after.id), before, after);
    }

    async fn furnish(&self, vm: &Arc<Vm>, ctx: &JobContext) -> Result<()> {
        let entries = self.0.config.read()?.file_sync;
        if entries.entries().is_empty() {
            return Ok(());
        }
        let agent = self.0.agents.get(vm.id(), vm.agent()?, self.0.key()?)?;
        file_sync::apply(&agent, entries, ctx).await
    }

    fn vm_removed(&self, id: VmId) {
        self.0.agents.hang_up(id, Gone::Ended);
        self.0.close_ports(id);
        self.0.names.remove(id);
        self.0.ssh_config.remove(id);
        self.0.tell_stop();
        if let Err(error) = self.0.known_hosts.remove(id) {
            tracing::warn!(%error, "A deleted guest stays known to ssh");
        }
        self.0.bus.removed(&path::vm(&id.to_string()));
    }
}

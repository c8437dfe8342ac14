//! The life of virtual machines: what is, what should be, and the way from one to the other.
//!
//! [`Core`] knows all VMs of the owner, [`Vm`] is one of them. Both return errors of the bus's
//! contract, and neither knows the bus: whoever shows VMs to the world gives a [`Publish`].

mod access;
pub(crate) mod capability;
mod clock;
pub(crate) mod console;
pub(crate) mod control;
pub(crate) mod create;
pub(crate) mod defaults;
pub(crate) mod delete;
mod ended;
pub(crate) mod engine;
pub(crate) mod error;
mod events;
pub(crate) mod keys;
mod launch;
pub(crate) mod lookup;
pub(crate) mod machine;
mod measured;
mod monitor;
pub(crate) mod names;
pub(crate) mod plan;
pub(crate) mod progress;
mod publish_port;
pub(crate) mod recovery;
pub(crate) mod registry;
mod rename;
mod set;
mod slots;
pub(crate) mod sources;
pub(crate) mod start;
mod steps;
pub(crate) mod stop;
pub(crate) mod store;
#[cfg(test)]
mod tests;
pub(crate) mod vm;
mod workspace;

use std::sync::Arc;

use async_trait::async_trait;
use banger_bus::{Error, VmInfo};
use banger_model::VmId;

pub(crate) use console::Console;
pub(crate) use create::CreateRequest;
pub(crate) use measured::Measured;
use progress::JobContext;
pub(crate) use registry::{Core, Settings};
pub(crate) use vm::{AgentAddress, Vm};

/// Who hears of changes. Called in their order, under no lock of ours; must not block.
#[async_trait]
pub(crate) trait Publish: Send + Sync + 'static {
    fn vm_added(&self, vm: &Arc<Vm>);
    fn vm_changed(&self, vm: &Arc<Vm>, before: &VmInfo, after: &VmInfo);
    fn vm_removed(&self, id: VmId);

    /// Does what there is to do in a guest that has just come up, at each of its boots. Its
    /// failure fails a start.
    async fn furnish(&self, _: &Arc<Vm>, _: &JobContext) -> Result<(), Error> {
        Ok(())
    }
}

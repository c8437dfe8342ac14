//! The conversation with a VMM that runs, whichever it is.

use banger_bus::{Error, ErrorKind};
use banger_model::guest::AGENT_PORT;
use banger_store::VmRecord;
use banger_vmm::firecracker::{Api, ApiError, InstanceState, MachineConfig, default_cmdline};
use banger_vmm::{Qmp, QmpError, TapNetwork, VmmEvent};
use tokio::sync::mpsc;

use super::capability::VmPaths;
use super::engine::FIRECRACKER;
use super::error::chain;

/// The control of one VMM.
pub(super) enum Monitor {
    Qemu(Qmp),
    Firecracker(Api),
}

/// A monitor that was reached.
pub(super) struct Connected {
    pub(super) monitor: Monitor,
    /// What the VMM tells without being asked; Firecracker tells nothing.
    pub(super) events: Option<mpsc::Receiver<VmmEvent>>,
    /// The port on 127.0.0.1 that leads to the guest's agent, where the VMM forwards one.
    pub(super) port: Option<u16>,
}

/// Why a monitor does not do something.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum MonitorError {
    Qemu(#[from] QmpError),
    Firecracker(#[from] ApiError),
}

impl Monitor {
    /// Reaches the VMM of a run. A Firecracker that has not been told yet what to run is told.
    pub(super) async fn connect(record: &VmRecord, paths: &VmPaths) -> Result<Connected, MonitorError> {
        if is_firecracker(record) {
            let api = Api::connect(&paths.vmm_sockets()).await?;
            if api.state().await? == InstanceState::NotStarted {
                api.start(&config(record)).await?;
            }
            return Ok(Connected {
                monitor: Self::Firecracker(api),
                events: None,
                port: None,
            });
        }
        let (qmp, events) = Qmp::connect(&paths.monitor()).await?;
        let port = match record.slot {
            Some(_) => None,
            None => Some(qmp.forwarded_port(AGENT_PORT).await?),
        };
        Ok(Connected {
            monitor: Self::Qemu(qmp),
            events: Some(events),
            port,
        })
    }

    /// Halts the virtual CPUs.
    pub(super) async fn pause(&self) -> Result<(), MonitorError> {
        match self {
            Self::Qemu(qmp) => Ok(qmp.stop().await?),
            Self::Firecracker(api) => Ok(api.pause().await?),
        }
    }

    /// Lets the virtual CPUs go on.
    pub(super) async fn resume(&self) -> Result<(), MonitorError> {
        match self {
            Self::Qemu(qmp) => Ok(qmp.cont().await?),
            Self::Firecracker(api) => Ok(api.resume().await?),
        }
    }

    /// Asks the guest to shut down by the machine's own means; it may not follow.
    pub(super) async fn press_power_button(&self) -> Result<(), MonitorError> {
        match self {
            Self::Qemu(qmp) => Ok(qmp.system_powerdown().await?),
            Self::Firecracker(api) => Ok(api.send_ctrl_alt_del().await?),
        }
    }

    /// Ends the VMM at once; false when it has no way for it, or does not follow.
    pub(super) async fn quit(&self) -> bool {
        match self {
            Self::Qemu(qmp) => qmp.quit().await.is_ok(),
            Self::Firecracker(_) => false,
        }
    }
}

impl From<MonitorError> for Error {
    fn from(error: MonitorError) -> Self {
        Self::new(ErrorKind::EngineFailed, chain(&error))
    }
}

pub(super) fn is_firecracker(record: &VmRecord) -> bool {
    record.engine == FIRECRACKER
}

fn config(record: &VmRecord) -> MachineConfig {
    MachineConfig {
        vcpus: record.spec.vcpus,
        memory_mib: record.spec.memory_mib,
        cmdline: default_cmdline(),
        tap: record.slot.map(|held| TapNetwork {
            name: held.slot.tap(),
            queue: None,
            mac: held.slot.mac(),
        }),
    }
}

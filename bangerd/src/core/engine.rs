//! Which engine runs a VM here: found out once, remembered while it holds.

use std::time::Duration;

use banger_bus::helper::LaunchEngine;
use banger_bus::{Error, ErrorKind};
use banger_model::EngineChoice;
use banger_vmm::probe::{choose_accelerator, find_qemu};
use banger_vmm::{Accelerator, EngineKind, MachineType};
use tokio::sync::OnceCell;

use super::error::chain;

/// How long the KVM probe may take; where KVM works it takes some milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What will run a VM.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub engine: EngineKind,
    /// `qemu`.
    pub name: &'static str,
    pub accelerator: Accelerator,
    pub machine: MachineType,
}

/// The engines of this host.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    qemu: OnceCell<Chosen>,
}

impl Engines {
    /// The engine for a VM. The first call runs QEMU for its version and the KVM probe; only
    /// a good answer is remembered, so that an engine installed later is found.
    ///
    /// # Errors
    /// `EngineUnavailable` with what to install.
    pub(crate) async fn choose(&self, wanted: EngineChoice) -> Result<Chosen, Error> {
        match wanted {
            EngineChoice::Auto | EngineChoice::Qemu => self.qemu.get_or_try_init(probe).await.cloned(),
            EngineChoice::Firecracker => Err(Error::new(
                ErrorKind::EngineUnavailable,
                "The engine firecracker needs system mode, which is not installed",
            )
            .hint("Use the engine auto or qemu.")),
        }
    }
}

impl Chosen {
    /// As the helper knows it.
    pub(super) const fn number(&self) -> LaunchEngine {
        match self.engine {
            EngineKind::Qemu(_) => LaunchEngine::Qemu,
            EngineKind::Firecracker(_) => LaunchEngine::Firecracker,
        }
    }

    /// Whether it opens its disks again by their descriptors; QEMU uses those that it has.
    pub(super) const fn opens_disks_anew(&self) -> bool {
        match self.engine {
            EngineKind::Qemu(_) => false,
            EngineKind::Firecracker(_) => true,
        }
    }

    /// `kvm` or `tcg`.
    pub(crate) const fn accelerator_name(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

async fn probe() -> Result<Chosen, Error> {
    let (qemu, kvm) = tokio::join!(find_qemu(), banger_sys::kvm::probe_kvm(PROBE_LIMIT));
    let qemu = qemu.map_err(|e| Error::new(ErrorKind::EngineUnavailable, chain(&e)))?;
    let choice = choose_accelerator(&kvm);
    tracing::info!(binary = %qemu.binary.display(), version = %qemu.version, reason = %choice.reason, "Engine chosen");
    Ok(Chosen {
        engine: EngineKind::Qemu(qemu),
        name: "qemu",
        accelerator: choice.accelerator,
        machine: MachineType::Q35,
    })
}

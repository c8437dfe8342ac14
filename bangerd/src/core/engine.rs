//! Which engine runs a VM here: found out once, remembered while it holds.

use std::time::Duration;

use banger_bus::helper::LaunchEngine;
use banger_bus::{Error, ErrorKind};
use banger_model::EngineChoice;
use banger_vmm::firecracker::installed;
use banger_vmm::probe::{AcceleratorChoice, choose_accelerator, find_qemu};
use banger_vmm::{Accelerator, EngineKind, MachineType};
use tokio::sync::OnceCell;

use super::error::chain;

/// How long the KVM probe may take; where KVM works it takes some milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// The name of Firecracker, in a record too.
pub(super) const FIRECRACKER: &str = "firecracker";

/// What will run a VM.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub engine: EngineKind,
    /// `qemu` or `firecracker`.
    pub name: &'static str,
    pub accelerator: Accelerator,
    pub machine: MachineType,
}

/// The engines of this host.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    accelerator: OnceCell<AcceleratorChoice>,
    qemu: OnceCell<Chosen>,
    firecracker: OnceCell<Chosen>,
}

impl Engines {
    /// The engine for a VM; `in_slot`: the helper launches it. The first call runs the engines
    /// for their versions and the KVM probe; only a good answer is remembered, so that an engine
    /// installed later is found.
    ///
    /// # Errors
    /// `EngineUnavailable` with what to install.
    pub(crate) async fn choose(&self, wanted: EngineChoice, in_slot: bool) -> Result<Chosen, Error> {
        match wanted {
            EngineChoice::Qemu => self.qemu().await,
            EngineChoice::Firecracker => self.firecracker(in_slot).await,
            EngineChoice::Auto => match self.firecracker(in_slot).await {
                Ok(chosen) => Ok(chosen),
                Err(e) => {
                    tracing::debug!(error = %e, "Firecracker is not used");
                    self.qemu().await
                }
            },
        }
    }

    async fn qemu(&self) -> Result<Chosen, Error> {
        let probe = async {
            let (qemu, choice) = tokio::join!(find_qemu(), self.accelerator());
            let qemu = qemu.map_err(|e| unavailable(&e))?;
            tracing::info!(binary = %qemu.binary.display(), version = %qemu.version, reason = %choice.reason, "QEMU can be used");
            Ok(Chosen {
                engine: EngineKind::Qemu(qemu),
                name: "qemu",
                accelerator: choice.accelerator,
                machine: MachineType::Q35,
            })
        };
        self.qemu.get_or_try_init(|| probe).await.cloned()
    }

    async fn firecracker(&self, in_slot: bool) -> Result<Chosen, Error> {
        if !in_slot {
            return Err(Error::new(
                ErrorKind::EngineUnavailable,
                "The engine firecracker needs system mode: it has no network for a VM of user mode",
            )
            .hint("Install system mode (`sudo banger system install`), or use the engine auto or qemu."));
        }
        let probe = async {
            let (firecracker, choice) = tokio::join!(installed(), self.accelerator());
            let firecracker = firecracker.map_err(|e| unavailable(&e))?;
            if choice.accelerator != Accelerator::Kvm {
                return Err(Error::new(
                    ErrorKind::EngineUnavailable,
                    format!("The engine firecracker needs KVM. {}", choice.reason),
                )
                .hint("Use the engine auto or qemu."));
            }
            tracing::info!(binary = %firecracker.binary.display(), version = %firecracker.version, reason = %choice.reason, "Firecracker can be used");
            Ok(Chosen {
                engine: EngineKind::Firecracker(firecracker),
                name: FIRECRACKER,
                accelerator: Accelerator::Kvm,
                machine: MachineType::Q35,
            })
        };
        self.firecracker.get_or_try_init(|| probe).await.cloned()
    }

    async fn accelerator(&self) -> &AcceleratorChoice {
        let probe = async || choose_accelerator(&banger_sys::kvm::probe_kvm(PROBE_LIMIT).await);
        self.accelerator.get_or_init(probe).await
    }
}

fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::EngineUnavailable, chain(error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn firecracker_is_for_system_mode() {
        let engines = Engines::default();
        let error = engines
            .choose(EngineChoice::Firecracker, false)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::EngineUnavailable);
        assert!(error.message.contains("system mode"), "{error}");
        assert!(error.message.contains("banger system install"), "{error}");
    }
}

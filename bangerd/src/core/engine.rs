//! Which engine runs a VM here: found out once, remembered while it holds.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use banger_bus::helper::LaunchEngine;
use banger_bus::{Error, ErrorKind};
use banger_model::EngineChoice;
use banger_sys::kvm::KvmProbe;
use banger_vmm::firecracker::installed;
use banger_vmm::probe::{AcceleratorChoice, choose_accelerator, find_qemu};
use banger_vmm::{Accelerator, EngineKind, Firecracker, MachineType, Qemu};
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
    kvm: OnceCell<KvmProbe>,
    qemu: OnceCell<Qemu>,
    firecracker: OnceCell<Firecracker>,
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
            EngineChoice::Qemu => self.qemu(in_slot).await,
            EngineChoice::Firecracker => self.firecracker(in_slot).await,
            EngineChoice::Auto => match self.firecracker(in_slot).await {
                Ok(chosen) => Ok(chosen),
                Err(e) => {
                    tracing::debug!(error = %e, "Firecracker is not used");
                    self.qemu(in_slot).await
                }
            },
        }
    }

    async fn qemu(&self, in_slot: bool) -> Result<Chosen, Error> {
        let find = async || {
            let qemu = find_qemu().await.map_err(|e| unavailable(&e))?;
            tracing::info!(binary = %qemu.binary.display(), version = %qemu.version, "QEMU can be used");
            Ok::<_, Error>(qemu)
        };
        let (qemu, choice) = tokio::join!(self.qemu.get_or_try_init(find), self.accelerator(in_slot));
        Ok(Chosen {
            engine: EngineKind::Qemu(qemu?.clone()),
            name: "qemu",
            accelerator: choice.accelerator,
            machine: MachineType::Q35,
        })
    }

    async fn firecracker(&self, in_slot: bool) -> Result<Chosen, Error> {
        if !in_slot {
            return Err(Error::new(
                ErrorKind::EngineUnavailable,
                "The engine firecracker needs system mode: it has no network for a VM of user mode",
            )
            .hint("Install system mode (`sudo banger system install`), or use the engine auto or qemu."));
        }
        let find = async || {
            let firecracker = installed().await.map_err(|e| unavailable(&e))?;
            tracing::info!(binary = %firecracker.binary.display(), version = %firecracker.version, "Firecracker can be used");
            Ok::<_, Error>(firecracker)
        };
        let (firecracker, choice) =
            tokio::join!(self.firecracker.get_or_try_init(find), self.accelerator(in_slot));
        let firecracker = firecracker?.clone();
        if choice.accelerator != Accelerator::Kvm {
            return Err(Error::new(
                ErrorKind::EngineUnavailable,
                format!("The engine firecracker needs KVM. {}", choice.reason),
            )
            .hint("Use the engine auto or qemu."));
        }
        Ok(Chosen {
            engine: EngineKind::Firecracker(firecracker),
            name: FIRECRACKER,
            accelerator: Accelerator::Kvm,
            machine: MachineType::Q35,
        })
    }

    async fn accelerator(&self, in_slot: bool) -> AcceleratorChoice {
        let probe = async || {
            let found = banger_sys::kvm::probe_kvm(PROBE_LIMIT).await;
            tracing::info!(reason = %choose_accelerator(&found).reason, "KVM was tried");
            found
        };
        accelerator_of(self.kvm.get_or_init(probe).await, in_slot && is_open_to_a_group())
    }
}

/// Whether the VMM of a slot, which has the device's group, may open /dev/kvm.
fn is_open_to_a_group() -> bool {
    const GROUP_READ_WRITE: u32 = 0o060;
    std::fs::metadata("/dev/kvm")
        .is_ok_and(|node| node.gid() != 0 && node.mode() & GROUP_READ_WRITE == GROUP_READ_WRITE)
}

/// The VMM of a slot may open /dev/kvm where its owner may not. Then nobody has tried it
/// beforehand, and a guest that does not run on it is one that does not boot.
fn accelerator_of(probe: &KvmProbe, vmm_may: bool) -> AcceleratorChoice {
    if vmm_may && *probe == KvmProbe::NoPermission {
        return AcceleratorChoice {
            accelerator: Accelerator::Kvm,
            reason: "VMMs of system mode may open /dev/kvm".to_owned(),
        };
    }
    choose_accelerator(probe)
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

    #[test]
    fn in_a_slot_the_vmm_s_right_to_kvm_counts_and_not_the_owner_s() {
        let of = |probe: &KvmProbe, vmm_may| accelerator_of(probe, vmm_may).accelerator;
        assert_eq!(of(&KvmProbe::NoPermission, true), Accelerator::Kvm);
        assert_eq!(of(&KvmProbe::NoPermission, false), Accelerator::Tcg);
        let hangs = KvmProbe::DoesNotRun {
            how: "it hangs".to_owned(),
        };
        for useless in [KvmProbe::NoDevice, hangs] {
            assert_eq!(of(&useless, true), Accelerator::Tcg);
        }
    }

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

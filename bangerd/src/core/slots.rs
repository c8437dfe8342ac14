//! The slots of system mode: a VM's run holds one, which is noted before its first use and
//! forgotten after it was given back.

use std::sync::Arc;

use banger_bus::{Error, ErrorKind};
use banger_image::kernel;
use banger_model::config::ModeChoice;
use banger_model::{GuestBridge, KernelName, Slot, VmId};
use banger_store::HeldSlot;
use banger_sys::pidfd::{Pidfd, ProcessIdentity};

use super::access;
use super::capability::blocking;
use super::registry::Core;
use super::vm::Vm;
use crate::config::ConfigFile;
use crate::fail_point::fail_point;
use crate::helper::{Failure, Helper, Interaction};

impl Core {
    /// A slot for a VM's run, noted; `None` where this daemon launches it itself.
    ///
    /// # Errors
    /// `HelperUnavailable` and `NotAuthorized` where the owner wants system mode and nothing
    /// else; `LimitExceeded` and others as the helper says.
    pub(super) async fn hold_slot(&self, id: VmId, bridge: GuestBridge) -> Result<Option<HeldSlot>, Error> {
        let choice = self.mode_choice()?;
        let vm = self.vm_of(id)?;
        // Who looks for slots of no VM must not see one that is about to be noted.
        let _turn = self.slots_turn().lock().await;
        drop_old(self.helper(), &vm).await?;
        let interaction = match choice {
            ModeChoice::User => return Ok(None),
            // Who did not ask for system mode is not asked for a password.
            ModeChoice::Auto => Interaction::None,
            ModeChoice::System => Interaction::Allowed,
        };
        match self.helper().acquire(bridge, interaction).await {
            Ok(held) => {
                self.helper().remember(Ok(()));
                if let Err(e) = note(&vm, held).await {
                    vm.forget_slot().await;
                    // As far as it can be told now; else the next recovery finds it.
                    let _ = self.helper().release(held.handle).await;
                    return Err(e);
                }
                Ok(Some(held))
            }
            Err(failure) if failure.is_absence() => {
                self.helper().remember(Err(failure.clone()));
                match choice {
                    ModeChoice::System => Err(failure.into()),
                    ModeChoice::Auto | ModeChoice::User => Ok(None),
                }
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Gives a VM's slot back, if it holds one. Where the helper is not there any more the note
    /// stays, and the next daemon tries again.
    ///
    /// # Errors
    /// When the helper is there and does not take it.
    pub(super) async fn give_back(&self, id: VmId) -> Result<(), Error> {
        let Some(vm) = self.get(id) else {
            return Ok(());
        };
        let Some(held) = vm.record().slot else {
            return Ok(());
        };
        match self.helper().release(held.handle).await {
            Ok(()) | Err(Failure::NoSuchSlot) => {
                fail_point!("slot.given-back");
                vm.forget_slot().await;
            }
            Err(Failure::NotInstalled) => {
                tracing::warn!(vm = %vm.name(), slot = %held.slot, "A slot was not given back: the helper is gone");
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    /// What a VM that holds a slot boots, and the slot.
    pub(super) fn kernel_and_slot(&self, id: VmId) -> Option<(KernelName, HeldSlot)> {
        let record = self.get(id)?.record();
        Some((record.kernel, record.slot?))
    }

    fn vm_of(&self, id: VmId) -> Result<Arc<Vm>, Error> {
        self.get(id)
            .ok_or_else(|| Error::new(ErrorKind::NoSuchVm, format!("No such VM: {id}")))
    }
}

impl Core {
    /// Finds out whether the helper would launch VMs, unless the owner wants none of it.
    pub(super) async fn look_for_helper(&self) {
        if self.mode_choice().is_ok_and(|choice| choice != ModeChoice::User) {
            self.helper().remember(self.helper().standing().await);
        }
    }

    /// Whether the next VM is launched by the helper.
    pub(crate) fn is_system_mode(&self) -> bool {
        match self.mode_choice() {
            Ok(ModeChoice::System) => true,
            Ok(ModeChoice::Auto) => self.helper().is_willing(),
            Ok(ModeChoice::User) | Err(_) => false,
        }
    }

    /// Gives back slots that no VM holds, and takes rights back that no slot needs. Says how
    /// many slots there were.
    pub(super) async fn settle_slots(self: &Arc<Self>) -> usize {
        let used = self.helper().is_willing() || self.vms().iter().any(|vm| vm.record().slot.is_some());
        if !used {
            return 0;
        }
        let _turn = self.slots_turn().lock().await;
        let held: Vec<HeldSlot> = self.vms().iter().filter_map(|vm| vm.record().slot).collect();
        self.take_rights_back(&held).await;
        let slots = match self.helper().list().await {
            Ok(slots) => slots,
            Err(failure) => {
                tracing::debug!(%failure, "Which slots there are cannot be told");
                return 0;
            }
        };
        let mut given_back = 0;
        for known in slots {
            if held.iter().any(|held| held.handle == known.held.handle) {
                continue;
            }
            if known.running {
                // A slot is noted before its VMM exists: this one is of another state directory,
                // or of a database that is lost.
                tracing::warn!(slot = %known.held.slot, unit = known.held.slot.unit(), "A slot of no VM has a VMM: it is left alone");
                continue;
            }
            match self.helper().release(known.held.handle).await {
                Ok(()) | Err(Failure::NoSuchSlot) => given_back += 1,
                Err(failure) => tracing::warn!(%failure, "A slot of no VM stays"),
            }
        }
        if given_back > 0 {
            tracing::info!(given_back, "Gave back slots of no VM");
        }
        given_back
    }

    /// Of every VM's disk and every kernel.
    async fn take_rights_back(&self, held: &[HeldSlot]) {
        let dirs = self.dirs().clone();
        let disks = self
            .vms()
            .iter()
            .map(|vm| self.paths(vm.id()).root_disk())
            .collect::<Vec<_>>();
        let held: Vec<Slot> = held.iter().map(|held| held.slot).collect();
        let swept = blocking(move || {
            let kernels = kernel::list(&dirs.kernels()).unwrap_or_default();
            let kernels = kernels.iter().map(kernel::Kernel::vmlinux);
            for path in disks.into_iter().chain(kernels) {
                if let Err(error) = access::take_back(&path, |slot| held.contains(&slot)) {
                    tracing::warn!(%error, "A right stays");
                }
            }
            Ok(())
        });
        // It has no errors of its own.
        let _ = swept.await;
    }

    /// The VMM of a slot that the helper started, and whose process was not noted.
    pub(super) async fn unnoted_process(&self, held: HeldSlot) -> Option<(Pidfd, ProcessIdentity)> {
        let slots = self.helper().list().await.ok()?;
        let known = slots.iter().find(|known| known.held == held)?;
        if !known.running {
            return None;
        }
        let processes = self.system_runner().await.processes(&held.slot.unit()).await;
        processes.into_iter().find_map(|pid| {
            let identity = ProcessIdentity::of(pid).ok()?;
            let process = Pidfd::open_checked(&identity).ok()??;
            process.is_alive().then_some((process, identity))
        })
    }

    fn mode_choice(&self) -> Result<ModeChoice, Error> {
        Ok(ConfigFile::new(self.dirs()).read()?.mode.unwrap_or_default())
    }
}

impl Vm {
    /// Forgets the slot, and with it where the guest was.
    async fn forget_slot(self: &Arc<Self>) {
        self.change(|record| {
            record.slot = None;
            record.ssh_port = 0;
        })
        .noted()
        .await;
    }
}

async fn note(vm: &Arc<Vm>, held: HeldSlot) -> Result<(), Error> {
    fail_point!("slot.acquired");
    vm.change(|record| record.slot = Some(held)).done().await
}

/// What an earlier run could not give back. Its handle means nothing to a helper that is not
/// there, or knows it no more.
async fn drop_old(helper: &Helper, vm: &Arc<Vm>) -> Result<(), Error> {
    let Some(held) = vm.record().slot else {
        return Ok(());
    };
    match helper.release(held.handle).await {
        Ok(()) | Err(Failure::NoSuchSlot | Failure::NotInstalled) => {
            vm.forget_slot().await;
            Ok(())
        }
        Err(failure) => Err(failure.into()),
    }
}

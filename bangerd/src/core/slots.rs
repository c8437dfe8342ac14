//! The slots of system mode: a VM's run holds one, which is noted before its first use and
//! forgotten after it was given back.

use std::sync::Arc;

use banger_bus::{Error, ErrorKind};
use banger_model::config::ModeChoice;
use banger_model::{GuestBridge, VmId};
use banger_store::HeldSlot;

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
        let choice = ConfigFile::new(self.dirs()).read()?.mode.unwrap_or_default();
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
                fail_point!("stop.given-back");
                vm.forget_slot().await;
            }
            Err(Failure::NotInstalled) => {
                tracing::warn!(vm = %vm.name(), slot = %held.slot, "A slot was not given back: the helper is gone");
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    fn vm_of(&self, id: VmId) -> Result<Arc<Vm>, Error> {
        self.get(id)
            .ok_or_else(|| Error::new(ErrorKind::NoSuchVm, format!("No such VM: {id}")))
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
    fail_point!("start.acquired");
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

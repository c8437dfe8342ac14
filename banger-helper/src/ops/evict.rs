//! `Evict`: ends the VMM of anybody's slot.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};
use banger_model::{Event, Slot};

use super::{Details, Op};
use crate::context::Call;
use crate::journal::{self, chain};

/// Sends SIGKILL; the slot stays its owner's.
pub struct Evict {
    pub slot: u16,
}

impl Op for Evict {
    const ACTION: &'static str = "evict";
    type Output = ();

    fn details(&self, _: &Call) -> Details {
        Details::from([("slot", self.slot.to_string())])
    }

    async fn apply(self, call: &Call) -> HelperResult<()> {
        let slot = Slot::new(self.slot)
            .map_err(|error| HelperError::new(ErrorKind::InvalidArgument, error.to_string()))?;
        let slot = call.context.slots.find_any(slot).await?;
        let ended = call.context.systemd.end(slot.slot).await;
        ended.map_err(|error| HelperError::new(ErrorKind::Failed, chain(&error)))?;
        let text = format!("User {} has ended the VMM in slot {}", call.uid, slot.slot);
        let (user, owner) = (call.uid.to_string(), slot.owner.to_string());
        let fields = [("BANGER_USER", &*user), ("BANGER_OWNER", &*owner)];
        journal::tell_of(slot.slot, Event::VmmEvicted, &text, &fields);
        Ok(())
    }
}

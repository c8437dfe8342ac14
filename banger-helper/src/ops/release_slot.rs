//! `ReleaseSlot`: takes a slot back.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, WireHandle};
use banger_model::Event;

use super::{Details, Op, slot_details};
use crate::context::Call;
use crate::journal::chain;
use crate::{fail_point, journal, net};

/// Its VMM and its tap go first; when one of them stays, so does the slot.
pub struct ReleaseSlot {
    pub handle: WireHandle,
}

impl Op for ReleaseSlot {
    const ACTION: &'static str = "release-slot";
    type Output = ();

    fn details(&self, call: &Call) -> Details {
        slot_details(call, self.handle)
    }

    async fn apply(self, call: &Call) -> HelperResult<()> {
        let slot = call.context.slots.find(call.uid, self.handle.into()).await?;
        fail_point::hit("release.begin").await?;
        let ended = call.context.systemd.end(slot.slot).await;
        ended.map_err(|error| HelperError::new(ErrorKind::Failed, chain(&error)))?;
        fail_point::hit("release.ended").await?;
        net::remove_tap(&call.context.net, slot.slot).await?;
        fail_point::hit("release.tap").await?;
        let number = slot.slot;
        slot.release().await?;
        fail_point::hit("release.removed").await?;
        let (uid, text) = (call.uid.to_string(), format!("Slot {number} is nobody's now"));
        journal::tell_of(number, Event::SlotReleased, &text, &[("BANGER_UID", &uid)]);
        Ok(())
    }
}

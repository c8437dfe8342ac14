//! `AcquireSlot`: gives the caller a slot.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, SlotGrant};
use banger_model::{Event, GuestBridge};

use super::{Details, Op, unknown};
use crate::context::Call;
use crate::slots::SlotEntry;
use crate::{fail_point, journal, launch, net};

/// A slot with its tap, on a network.
pub struct AcquireSlot {
    /// [`GuestBridge::number`].
    pub network: u8,
}

impl Op for AcquireSlot {
    const ACTION: &'static str = "acquire-slot";
    type Output = SlotGrant;

    fn details(&self, _: &Call) -> Details {
        let bridge = GuestBridge::of_number(self.network);
        let name = bridge.map_or_else(unknown, |bridge| bridge.name().to_owned());
        Details::from([("network", name)])
    }

    async fn apply(self, call: &Call) -> HelperResult<SlotGrant> {
        let bridge = GuestBridge::of_number(self.network).ok_or_else(|| {
            let text = format!("No such network: {} (0 public, 1 closed)", self.network);
            HelperError::new(ErrorKind::InvalidArgument, text)
        })?;
        fail_point::hit("acquire.begin").await?;
        let slot = call.context.slots.acquire(call.uid, bridge).await?;
        let grant = SlotGrant::new(slot.slot, slot.handle);
        if let Err(error) = furnish(call, &slot).await {
            // Half a tap is no use to the slot's next owner.
            let _ = net::remove_tap(&call.context.net, slot.slot).await;
            slot.release().await?;
            return Err(error);
        }
        let text = format!("Slot {} is uid {}'s now", slot.slot, call.uid);
        let uid = call.uid.to_string();
        journal::tell_of(slot.slot, Event::SlotAcquired, &text, &[("BANGER_UID", &uid)]);
        launch::warm_up(&call.context, slot.slot);
        Ok(grant)
    }
}

async fn furnish(call: &Call, slot: &SlotEntry) -> HelperResult<()> {
    fail_point::hit("acquire.written").await?;
    net::ensure_tap(&call.context.net, slot.slot, slot.bridge).await?;
    fail_point::hit("acquire.tap").await?;
    Ok(())
}
